"""Whether a policy can be cut over the ranks of a layout, and which training settings exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.models.family import HFConfig

VOCAB_MULTIPLE = 128
"""Embedding rows are padded to a multiple of this in every layout, so that one checkpoint fits every TP size that
divides it. The padded rows are zero, never trained, and cut off at export."""


def padded_vocab_size(vocab_size: int) -> int:
    """Embedding rows in the checkpoint: the vocabulary rounded up to a multiple of `VOCAB_MULTIPLE`."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def layout_problems(config: HFConfig, parallel: Parallel) -> Iterator[str]:
    """What of the policy does not divide over the ranks. Raises UserError where ``config.json`` lacks a number."""
    tensor = f"parallel.tensor={parallel.tensor}"
    chunks = parallel.pipeline * (parallel.virtual_pipeline or 1)
    for name, count, parts, setting in (
        ("num_attention_heads", config.count("num_attention_heads"), parallel.tensor, tensor),
        ("num_key_value_heads", config.key_value_heads, parallel.tensor, tensor),
        ("intermediate_size", config.count("intermediate_size"), parallel.tensor, tensor),
        ("vocab_size (padded)", padded_vocab_size(config.count("vocab_size")), parallel.tensor, tensor),
        ("num_hidden_layers", config.layers, chunks, "parallel.pipeline x virtual_pipeline"),
    ):
        if count % parts:
            yield f"{config.path}: {name}={count} does not divide over {setting} ({parts} parts); choose a divisor"


def setting_problems(parallel: Parallel, train: Train, precision: Precision) -> Iterator[str]:
    """Training settings that exclude each other, whatever the policy."""
    if train.peft == "lora" and train.lora_rank % parallel.tensor:
        yield (
            f"train.lora_rank={train.lora_rank} does not divide over parallel.tensor={parallel.tensor}; "
            "change one of them"
        )
    if precision.kind == "fp8" and train.layers == "local":
        yield (
            "precision=fp8 needs Transformer Engine's layers, and train.layers=local takes Megatron's; "
            "choose train.layers=auto or precision=bf16"
        )
