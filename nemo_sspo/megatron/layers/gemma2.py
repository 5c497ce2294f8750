"""What Gemma 2 (arXiv:2408.00118) has beyond Megatron's GPT, as parts that any of its layers take.

    norms after attention and feed-forward   `with_sandwich_norms`, where a branch joins the residual stream
    attention logits capped                  `flex_attention.py`; on a CPU `core_attention.py`
    final logits capped                      `head/tile.py`; `finish_gemma2` where a model returns logits
    embedding times sqrt(H)                  `finish_gemma2`

Norms around 1, GeGLU, the scale of queries and alternating windows are fields of Megatron's config
(`models/families/gemma2.py`).

NeMo 2.7.3 has a Gemma 2 (nemo.collections.llm.gpt.model.gemma2), of which only the config class and the checkpoint
keys serve here. Its attention is not Hugging Face's: the windows lie in the other layers (the second, fourth, ...),
reach one token further, and are left out where no mask is given; it refuses packed rows and context parallelism. Its
norms are inside the row-parallel matrices, so that LoRA would add to what is normalized already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn


def final_softcap(config: TransformerConfig) -> float | None:
    """Bound of the final logits, or None. A field of the model families that cap only."""
    return getattr(config, "final_logit_softcapping", None)


def attention_softcap(config: TransformerConfig) -> float | None:
    """Bound of the attention logits, or None. A field of the model families that cap only."""
    return getattr(config, "attn_logit_softcapping", None)


def has_sandwich_norms(config: TransformerConfig) -> bool:
    """Whether a layer normalizes its branches' outputs too. A field of the model families that do only."""
    return getattr(config, "sandwich_norms", False)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """cap tanh(x / cap): nearly x where |x| is small against `cap`, and never beyond it."""
    return cap * torch.tanh(x / cap)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, ``gelu_pytorch_tanh`` of Hugging Face."""
    return F.gelu(x, approximate="tanh")


class NormThenAdd(nn.Module):
    """Megatron's bias-dropout-add, with the branch normalized before it joins the residual stream.

    The matrix in front of it stays a plain one, so that adapters add to its output before the norm.
    """

    def __init__(self, config: TransformerConfig, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.norm = norm(config=config, hidden_size=config.hidden_size, eps=config.layernorm_epsilon)

    def forward(self, training: bool, fused: bool) -> Callable[..., Tensor]:
        """What Megatron's layer calls with ((branch, bias), residual, dropout probability)."""
        add = get_bias_dropout_add(training, fused)

        def normalized(branch_and_bias: tuple[Tensor, Tensor | None], residual: Tensor, prob: float) -> Tensor:
            branch, bias = branch_and_bias
            # Megatron's layer enables gradients around this call, in inference mode too, where Transformer Engine's
            # norm would try to save its input and torch would refuse: "Inference tensors cannot be saved for backward".
            with torch.set_grad_enabled(torch.is_grad_enabled() and not torch.is_inference_mode_enabled()):
                branch = self.norm(branch if bias is None else branch + bias)
            return add((branch, None), residual, prob)

        return normalized


def with_sandwich_norms(spec: ModuleSpec, config: TransformerConfig, norm: Callable[..., nn.Module]) -> ModuleSpec:
    """The layer `spec` with norms after attention and feed-forward; checkpoint keys as NeMo has them."""
    layer = spec.submodules
    layer.self_attn_bda = ModuleSpec(NormThenAdd, params={"config": config, "norm": norm})
    layer.mlp_bda = ModuleSpec(NormThenAdd, params={"config": config, "norm": norm})
    layer.sharded_state_dict_keys_map = layer.sharded_state_dict_keys_map | {
        "self_attn_bda.norm.": "self_attention.linear_proj.post_layernorm.",
        "mlp_bda.norm.": "mlp.linear_fc2.post_layernorm.",
    }
    return spec


def finish_gemma2(model: GPTModel) -> GPTModel:
    """Scale the embedding and cap the logits of this rank's chunk; returns it."""
    if model.pre_process:
        model.embedding.register_forward_hook(partial(_scaled, model.config.hidden_size**0.5))
    cap = final_softcap(model.config)
    if model.post_process and cap is not None:
        model.output_layer.register_forward_hook(partial(_capped, cap))
    return model


def _scaled(factor: float, _module: nn.Module, _inputs: Any, embedding: Tensor) -> Tensor:
    # Rounded to the embedding's precision first, as the model was trained: 55.5 in bf16 for sqrt(3072) = 55.43.
    return embedding * torch.tensor(factor, dtype=embedding.dtype).item()


def _capped(cap: float, _module: nn.Module, _inputs: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    logits, bias = output
    return soft_cap(logits, cap), bias
