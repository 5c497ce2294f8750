"""Which ranks are rehearsed: tiny ones of every kind of layout, and those of the presets in conf/experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.estimate.rank import StepPairs
from tests.rehearsal.case import Case, case_of
from tests.rehearsal.covering import Row, covering_rows, every_row

# --- tiny ------------------------------------------------------------------------------------------------------------

FACTORS: dict[str, tuple[Any, ...]] = {
    "tensor": (1, 2),
    "pipeline": ("1", "2", "2x2"),  # stages x chunks of each
    "context": (1, 2),
    "data": ("1", "2", "2 overlapped"),
    "rows": ("padded", "packed", "shared"),
    "precision": ("bf16", "fp8 tensorwise", "fp8 blockwise"),
    "recompute": ("none", "selective", "full"),
    "peft": ("none", "lora"),
    "loss": ("sppo", "dpo"),  # the one-pass head, and the one that computes logits again
    "family": ("llama", "qwen3", "gemma2"),
    "rank": ("first", "middle", "last"),
}
"""Sequence parallelism is on wherever there is tensor parallelism, as in every preset."""

_TINY = {
    "vocab_size": 768,  # nothing is padded, and no other matrix has as many columns, nor half as many
    "hidden_size": 128,  # FP8 scales blocks of 128
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
TINY_MODELS: dict[str, dict[str, Any]] = {
    "llama": {**_TINY, "model_type": "llama", "tie_word_embeddings": False},
    "qwen3": {**_TINY, "model_type": "qwen3", "tie_word_embeddings": True},
    "gemma2": {**_TINY, "model_type": "gemma2", "sliding_window": 16},
}
TINY_MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {
        **_TINY,
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": {
        **_TINY,
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
        "tie_word_embeddings": False,
    },
}
TINY_PAIRS = StepPairs(count=8, prompt=8, response=24)
TINY_PACK_TOKENS = 160
TINY_HEAD_TOKENS = 32


def is_valid(row: Row) -> bool:
    """What the project or a library refuses, with its reason in `nemo_sspo`, is no case."""
    has_one_rank = row["tensor"] == 1 and row["pipeline"] == "1" and row["context"] == 1 and row["data"] == "1"
    return not (has_one_rank and row["rank"] != "first")


def tiny_cases() -> list[Case]:
    """A set of cases with every pair of values."""
    return [tiny_case(row) for row in covering_rows(every_row(FACTORS, is_valid), 2)]


def all_tiny_cases() -> Iterator[Case]:
    """All combinations, in an order that makes a beginning of it worth most: after those that have every pair of values
    come those that have every three, then every four, then the others."""
    rows = every_row(FACTORS, is_valid)
    given: list[Row] = []
    for strength in (2, 3, 4, len(FACTORS)):
        found = rows if strength == len(FACTORS) else covering_rows(rows, strength, given)
        given += (fresh := [row for row in found if row not in given])
        yield from map(tiny_case, fresh)


def tiny_case_of(key: str) -> Case:
    """The tiny case that a ledger's key names."""
    name, _, rank = key.rpartition(".rank_")
    factors = [factor for factor in FACTORS if factor != "rank"]
    row = {
        factor: next(value for value in FACTORS[factor] if str(value).replace(" ", "-") == part)
        for factor, part in zip(factors, name.split(","), strict=True)
    }
    return tiny_case({**row, "rank": "first"}).at(int(rank))


def saving(case: Case, checkpoints: Path) -> Case:
    """The tiny case with its policy, of those that were imported below `checkpoints`, and a state after each step."""
    train = case.train.model_copy(update={"checkpoint_every_steps": 1})
    return replace(case, train=train, checkpoint=checkpoints / case.model["model_type"] / "nemo")


def tiny_case(row: Row) -> Case:
    stages, _, chunks = row["pipeline"].partition("x")
    replicas, _, overlapped = row["data"].partition(" ")
    parallel = Parallel(
        tensor=row["tensor"],
        pipeline=int(stages),
        virtual_pipeline=int(chunks) if chunks else None,
        context=row["context"],
        data=int(replicas),
        sequence=row["tensor"] > 1,
        overlap_communication=bool(overlapped),
    )
    train = Train(
        packing=row["rows"] != "padded",
        share_prompt=row["rows"] == "shared",
        pack_tokens=TINY_PACK_TOKENS,
        recompute=row["recompute"],
        peft=None if row["peft"] == "none" else row["peft"],
        lora_rank=8,
        global_batch_size=TINY_PAIRS.count,
        head_chunk_tokens=TINY_HEAD_TOKENS,
        checkpoint_every_steps=None,
        loggers=(),
    )
    rank = {"first": 0, "middle": parallel.world_size // 2, "last": parallel.world_size - 1}[row["rank"]]
    name = ",".join(str(row[factor]) for factor in FACTORS if factor != "rank").replace(" ", "-")
    precision = PRECISIONS[row["precision"]]
    return Case(name, TINY_MODELS[row["family"]], parallel, train, TINY_PAIRS, rank, precision, row["loss"])


PRECISIONS: dict[str, Precision] = {
    "bf16": Bf16Precision(),
    "fp8 tensorwise": Fp8Precision(),
    "fp8 blockwise": Fp8Precision(recipe="blockwise"),
}

_MIXTURES: tuple[tuple[str, str, Parallel, int, dict[str, Any]], ...] = (
    ("mixtral", "TP2 SP", Parallel(tensor=2, sequence=True), 0, {}),
    ("mixtral", "TP2 SP EP2", Parallel(tensor=2, sequence=True, expert=2), 1, {"packing": True, "share_prompt": True}),
    ("mixtral", "CP2 EP2", Parallel(context=2, expert=2), 1, {"packing": True, "recompute": "selective"}),
    ("qwen3_moe", "DP2 EP2", Parallel(data=2, expert=2), 0, {"packing": True}),
    ("qwen3_moe", "PP2 DP2 EP2", Parallel(pipeline=2, data=2, expert=2), 3, {"packing": True, "recompute": "full"}),
    ("qwen3_moe", "DP4 EP2 overlapped", Parallel(data=4, expert=2, overlap_communication=True), 3, {}),
)
"""Family, name of the layout, layout, rank, settings."""


def mixture_cases() -> list[Case]:
    """Ranks of mixtures of experts, which core alone trains, in layouts of every kind."""
    common = {
        "pack_tokens": TINY_PACK_TOKENS,
        "head_chunk_tokens": TINY_HEAD_TOKENS,
        "global_batch_size": TINY_PAIRS.count,
        "loggers": (),
    }
    return [
        Case(
            f"{family}, {layout}",
            TINY_MIXTURES[family],
            parallel,
            Train(**common | settings),
            TINY_PAIRS,
            rank,
            trainer="core",
        )
        for family, layout, parallel, rank, settings in _MIXTURES
    ]


# --- presets ---------------------------------------------------------------------------------------------------------

_LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 5e5, "max_position_embeddings": 8192}
MODELS: dict[str, dict[str, Any]] = {
    "llama3-8b": {
        **_LLAMA,
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "sliding_window": None,
    },
    "llama3-70b": {
        **_LLAMA,
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "llama3-1b": {
        **_LLAMA,
        "max_position_embeddings": 131072,
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
}
"""What the published ``config.json`` of Llama 3 8B and 70B, Mistral 7B v0.2 and Llama 3.2 1B say. The last has rope
scaling too, which changes no size, and no preset: it is small enough for one GPU at TP 1."""

PRESETS = ("llama3-8b", "mistral-7b", "llama3-70b")
FULL_ROW = 4096
"""Tokens of a pair, two of which fill a packed row of 8,192: prompt and response 1,024 each."""
_LENGTHS = {"prompt": 1024, "response": 1024}


def preset(name: str, *, full_batch: bool = False) -> Case:
    """Rank 0 of a preset, at the most tokens a row may have; a step has 2 x PP microbatches, or the whole batch."""
    from nemo_sspo.config.load import load_experiment

    experiment = load_experiment([f"experiment={name}", "prompts=prompts.jsonl"])
    parallel = experiment.parallel
    of_a_microbatch = 2 if experiment.train.packing else experiment.train.micro_batch_size
    few = 2 * parallel.pipeline * of_a_microbatch * parallel.data
    count = experiment.train.global_batch_size if full_batch else few
    return case_of(experiment, MODELS[name], StepPairs(count, **_LENGTHS))


def one_gpu() -> Case:
    """A 1B model on one GPU, to hold the ledger against one in minutes."""
    train = Train(packing=True, global_batch_size=8, loggers=())
    return Case("llama3-1b", MODELS["llama3-1b"], Parallel(), train, StepPairs(8, **_LENGTHS))


def preset_cases(*, full_batch: bool = False) -> list[Case]:
    """First, middle and last rank of every preset, and the 1B model's."""
    cases = [one_gpu()]
    for name in PRESETS:
        case = preset(name, full_batch=full_batch)
        world = case.parallel.world_size
        cases += [case.at(rank) for rank in (0, world // 2, world - 1)]
    return cases
