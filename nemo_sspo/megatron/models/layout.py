"""Whether a policy can be cut over the ranks of a layout, and which training settings exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.config.trainers import Trainer
from nemo_sspo.megatron.models.families import family_of
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.feed_forward import Mixture

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


def mixture_problems(
    config: HFConfig, parallel: Parallel, train: Train, precision: Precision, trainer: Trainer
) -> Iterator[str]:
    """What a mixture of experts cannot be trained with, and a dense policy not cut by. Raises UserError where
    ``config.json`` lacks a number."""
    family = family_of(config)
    if family.nemo_config is None and trainer != "core":
        yield (
            f"{config.path}: model_type {family.model_type!r} is trained on megatron-core alone, and trainer={trainer} "
            "takes NeMo where it is; set trainer=core"
        )
    mixture = family.mixture(config)
    if mixture is None:
        if parallel.expert > 1:
            yield f"parallel.expert={parallel.expert}: {config.path} is of a policy without experts; set it to 1"
        return
    for problem in expert_problems(mixture, parallel):
        yield f"{config.path}: {problem}"
    if parallel.tensor > 1 and not parallel.sequence:
        yield "a mixture of experts over tensor-parallel ranks needs parallel.sequence=true"
    if train.peft is not None:
        yield f"train.peft={train.peft} is not supported for a mixture of experts; train all weights (train.peft=null)"
    if precision.kind == "fp8":
        yield "precision=fp8 is not supported for a mixture of experts; choose precision=bf16"


def expert_problems(mixture: Mixture, parallel: Parallel) -> Iterator[str]:
    """What of the experts does not divide over the ranks."""
    if mixture.experts % parallel.expert:
        yield (
            f"{mixture.experts_key}={mixture.experts} does not divide over parallel.expert={parallel.expert}; "
            "choose a divisor"
        )
    if parallel.expert == 1 and mixture.intermediate_size % parallel.tensor:
        yield (
            f"{mixture.intermediate_key}={mixture.intermediate_size} does not divide over "
            f"parallel.tensor={parallel.tensor}; choose a divisor, or parallel.expert above 1"
        )


def setting_problems(parallel: Parallel, train: Train, precision: Precision) -> Iterator[str]:
    """Training settings that exclude each other, whatever the policy."""
    if train.peft == "lora" and train.lora_rank % parallel.tensor:
        yield (
            f"train.lora_rank={train.lora_rank} does not divide over parallel.tensor={parallel.tensor}; "
            "change one of them"
        )
    if train.optimizer == "sgd" and parallel.distributed_optimizer:
        yield (
            "train.optimizer=sgd: Megatron's distributed optimizer is Adam's alone; choose "
            "parallel.distributed_optimizer=false"
        )
    if precision.kind == "fp8" and train.layers == "local":
        yield (
            "precision=fp8 needs Transformer Engine's layers, and train.layers=local takes Megatron's; "
            "choose train.layers=auto or precision=bf16"
        )
