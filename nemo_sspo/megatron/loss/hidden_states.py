"""Run a Megatron GPT model up to its output layer: hidden states instead of logits.

megatron-core 0.15 and 0.16 have no hook for this (0.18 has `output_processor`), so the output layer's `forward` is
replaced, on that instance and during one call, by one that keeps its input. The layer is still *called*: hooks on it,
such as the one that waits for the distributed optimizer's parameter gathering, run as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from megatron.core.models.gpt import GPTModel
from torch import Tensor, nn

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import Microbatch
from nemo_sspo.megatron.layers.attention_mask import PackedRow
from nemo_sspo.megatron.layers.prompt_sharing import rotary_by_position


def unwrap(model: nn.Module) -> GPTModel:
    """The GPTModel inside data-parallel, mixed-precision and Lightning wrappers, each of which calls it `module`."""
    inner: Any = model
    while not isinstance(inner, GPTModel):
        if not hasattr(inner, "module"):
            raise UserError(f"{type(inner).__name__} is not (and does not wrap) a Megatron GPTModel")
        inner = inner.module
    return inner


def forward_to_hidden_states(model: nn.Module, microbatch: Microbatch) -> Tensor:
    """Run this pipeline stage. Returns what the stage hands on:

    on the last stage the input of the output layer, after the final norm: [S, B, H], or [S / TP, B, H] under sequence
    parallelism, in the model's own precision; on earlier stages the activations for the next one.
    """
    gpt = unwrap(model)
    inputs = model_inputs(microbatch)
    if microbatch.part_bounds is None:
        return _run(model, gpt, inputs)
    row: PackedRow = inputs["packed_seq_params"]
    _, position_T = row.places(row.max_seqlen_q)
    with rotary_by_position(gpt, position_T):
        return _run(model, gpt, inputs)


def _run(model: nn.Module, gpt: GPTModel, inputs: dict[str, Any]) -> Tensor:
    if not gpt.post_process:
        return model(**inputs)
    if gpt.mtp_process:
        raise UserError("multi-token prediction adds losses of its own: set mtp_num_layers to none")
    with _output_layer_keeping_its_input(gpt) as kept:
        # Its return value is empty: mixed-precision wrappers would copy the hidden states to fp32 if they were in it.
        model(**inputs)
    (hidden_SBH,) = kept
    return hidden_SBH


def output_weight(model: nn.Module) -> Tensor:
    """The output layer's rows on this tensor-parallel rank, [V / TP, H]: its own ones or the tied embedding's.

    Last pipeline stage only. Raises UserError for output layers that are more than a matrix.
    """
    gpt = unwrap(model)
    layer = gpt.output_layer
    if getattr(layer, "bias", None) is not None:
        raise UserError("the output layer has a bias, which the log-prob head does not support")
    if gpt.share_embeddings_and_output_weights:
        return gpt.shared_embedding_or_output_weight()
    return layer.weight


def model_inputs(microbatch: Microbatch) -> dict[str, Any]:
    """Arguments of `GPTModel.forward`. No attention mask: see `batches/microbatch.py`, `layers/attention_mask.py`."""
    inputs: dict[str, Any] = {
        "input_ids": microbatch.tokens_BS,
        "position_ids": microbatch.position_ids_BS,
        "attention_mask": None,
    }
    if microbatch.cu_seqlens is not None:
        inputs["packed_seq_params"] = PackedRow(
            qkv_format="thd",
            cu_seqlens_q=microbatch.cu_seqlens,
            cu_seqlens_kv=microbatch.cu_seqlens,
            # The true maximum: it sets the rope table's length, and Megatron derives from it how to index it.
            max_seqlen_q=microbatch.max_seqlen,
            max_seqlen_kv=microbatch.max_seqlen,
            part_bounds=microbatch.part_bounds,
        )
    return inputs


@contextmanager
def _output_layer_keeping_its_input(gpt: GPTModel) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []

    def keep(input_: Tensor, *_args: object, **_kwargs: object) -> tuple[Tensor, None]:
        kept.append(input_)
        return input_.new_empty((0, 0, 0)), None

    gpt.output_layer.forward = keep  # shadows the class's method on this instance
    try:
        yield kept
    finally:
        del gpt.output_layer.forward
