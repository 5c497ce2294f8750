"""Log-prob heads as others publish them, written from their description: each maps hidden states to a loss.

Legend: S sequence, B rows (one response each), H hidden, V vocabulary, T = S x B tokens, C tokens of a chunk.

    full_logits     the official SPPO trainer: logits of every token in fp32, log_softmax, gather, masked sum
    selective       TRL: the same logits, but only logsumexp and the label's logit of each row
    chunked         NeMo-RL: chunks of all tokens; backward computes the logits again and works in fp32 throughout
    in_forward      Liger: a pair at a time, its gradients taken by autograd during the forward pass

All of them take every token of a row, prompts and padding included, and mask their log-probs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(sums of log-probs, indices of their responses) -> scalar."""


def full_logits(hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, index_BS: Tensor, loss: Loss) -> Tensor:
    logits_BSV = (hidden_SBH @ weight_VH.t()).transpose(0, 1).float()
    logps_BS = logits_BSV.log_softmax(-1).gather(-1, labels_BS[..., None]).squeeze(-1)
    return loss((logps_BS * (index_BS >= 0)).sum(-1), torch.arange(len(labels_BS)))


def selective(hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, index_BS: Tensor, loss: Loss) -> Tensor:
    logits_BSV = (hidden_SBH @ weight_VH.t()).transpose(0, 1).float()
    labels_logits_BS = logits_BSV.gather(-1, labels_BS[..., None]).squeeze(-1)
    logps_BS = labels_logits_BS - torch.stack([logits_SV.logsumexp(-1) for logits_SV in logits_BSV])
    return loss((logps_BS * (index_BS >= 0)).sum(-1), torch.arange(len(labels_BS)))


def chunked(
    hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, index_BS: Tensor, loss: Loss, *, chunk: int
) -> Tensor:
    hidden_TH = hidden_SBH.transpose(0, 1).flatten(0, 1)
    logps_T = _Chunked.apply(hidden_TH, weight_VH, labels_BS.flatten(), chunk)
    return loss((logps_T.view_as(index_BS) * (index_BS >= 0)).sum(-1), torch.arange(len(labels_BS)))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, labels_T: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(hidden_TH, weight_VH, labels_T)
        ctx.chunk = chunk
        parts = []
        for hidden_CH, labels_C in zip(hidden_TH.split(chunk), labels_T.split(chunk), strict=True):
            logps_CV = (hidden_CH @ weight_VH.t()).float().log_softmax(-1)
            parts.append(logps_CV.gather(-1, labels_C[:, None]).squeeze(-1))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_TH, weight_VH, labels_T = ctx.saved_tensors
        grad_hidden, grad_weight_VH = [], torch.zeros_like(weight_VH, dtype=torch.float32)
        chunks = (tensor.split(ctx.chunk) for tensor in (hidden_TH, labels_T, grad_T))
        for hidden_CH, labels_C, grad_C in zip(*chunks, strict=True):
            softmax_CV = (hidden_CH @ weight_VH.t()).float().softmax(-1)
            one_hot_CV = torch.nn.functional.one_hot(labels_C, len(weight_VH))
            grad_CV = (one_hot_CV - softmax_CV) * grad_C[:, None]
            grad_hidden.append((grad_CV @ weight_VH.float()).to(hidden_TH.dtype))
            grad_weight_VH += grad_CV.t() @ hidden_CH.float()
        return torch.cat(grad_hidden), grad_weight_VH.to(weight_VH.dtype), None, None


def in_forward(hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, index_BS: Tensor, loss: Loss) -> Tensor:
    return _InForward.apply(hidden_SBH, weight_VH, labels_BS, index_BS, loss)


class _InForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_SBH: Tensor, weight_VH: Tensor, labels_BS: Tensor, index_BS: Tensor, loss: Loss
    ) -> Any:
        grad_hidden_SBH, grad_weight_VH = torch.empty_like(hidden_SBH), torch.zeros_like(weight_VH)
        total = torch.zeros((), device=hidden_SBH.device)
        for first in range(0, len(labels_BS), 2):
            pair = slice(first, first + 2)
            with torch.enable_grad():
                own, weight = hidden_SBH[:, pair].detach().requires_grad_(), weight_VH.detach().requires_grad_()
                logps_SBV = (own @ weight.t()).float().log_softmax(-1)
                logps_BS = logps_SBV.gather(-1, labels_BS[pair].t()[..., None]).squeeze(-1).t()
                value = loss((logps_BS * (index_BS[pair] >= 0)).sum(-1), torch.arange(first, first + 2))
            grad_own, grad_weight = torch.autograd.grad(value, (own, weight))
            grad_hidden_SBH[:, pair] = grad_own
            grad_weight_VH += grad_weight
            total += value.detach()
        ctx.save_for_backward(grad_hidden_SBH, grad_weight_VH)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_SBH, grad_weight_VH = ctx.saved_tensors
        return grad_hidden_SBH * grad, grad_weight_VH * grad, None, None, None
