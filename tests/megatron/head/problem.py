"""A small problem for the heads of log-probs, and its answer by log_softmax over all logits."""

from __future__ import annotations

import torch
from torch import Tensor

SEQUENCE, ROWS, HIDDEN, VOCAB, PADDED_VOCAB = 12, 4, 8, 37, 48


def problem(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden_SBH, weight_VH (padding rows are large: they would dominate a softmax), labels_BS, response_index_BS."""
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(SEQUENCE, ROWS, HIDDEN, generator=draw).to(dtype)
    weight = torch.randn(PADDED_VOCAB, HIDDEN, generator=draw).to(dtype)
    weight[VOCAB:] *= 10
    labels = torch.randint(0, VOCAB, (ROWS, SEQUENCE), generator=draw)
    index = torch.full((ROWS, SEQUENCE), -1)
    for row in range(ROWS):
        index[row, 2 + row : 11 - row] = row
    return hidden, weight, labels, index


def by_log_softmax(
    hidden: Tensor, weight: Tensor, labels: Tensor, index: Tensor, softcap: float | None = None
) -> Tensor:
    logits_SBV = hidden.double() @ weight[:VOCAB].double().T
    if softcap is not None:
        logits_SBV = softcap * (logits_SBV / softcap).tanh()
    logps_BSV = logits_SBV.log_softmax(-1).transpose(0, 1)
    logps_BS = logps_BSV.gather(-1, labels[..., None]).squeeze(-1)
    return torch.stack([logps_BS[index == response].sum() for response in range(ROWS)])


UPSTREAM = torch.tensor([1.0, -2.0, 0.5, 3.0])  # dL / d logps: of both signs, as the losses give
