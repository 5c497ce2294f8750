"""Ranks of real models in layouts that a seed draws: what the estimate is held against.

    python -m tests.rehearsal -m tests.rehearsal.drawn

rehearses those that are not in ``ledgers/drawn.jsonl`` yet, adds them there, and prints the estimate beside each.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.estimate.rank import StepPairs
from tests.published_models import PUBLISHED
from tests.rehearsal.case import Case
from tests.rehearsal.cases import MODELS, PRECISIONS
from tests.rehearsal.committed import LEDGERS, Collected
from tests.rehearsal.estimated import HEAD, row
from tests.rehearsal.run import rehearse

DRAWN = LEDGERS / "drawn.jsonl"
COUNTS = {1: 12, 2: 16}
"""Cases of each seed. The last seed's were drawn after the last change of what is estimated."""
MIXTURES = 4
"""The last ones of that seed, of mixtures of experts."""
DRAWN_MODELS: dict[str, dict[str, Any]] = {
    **MODELS,
    **{name: PUBLISHED[name] for name in ("qwen2.5-7b", "qwen3-8b", "gemma-2-9b")},
}
DRAWN_MIXTURES = {name: PUBLISHED[name] for name in ("mixtral-8x7b", "qwen3-30b-a3b")}


def drawn_cases() -> list[Case]:
    """Different ones, always the same."""
    return [case for seed, count in COUNTS.items() for case in _of_seed(seed, count)]


def _of_seed(seed: int, count: int) -> list[Case]:
    generator = random.Random(seed)
    found: dict[str, Case] = {}
    while len(found) < count:
        of_mixtures = seed > 1 and len(found) >= count - MIXTURES
        case = (_draw_mixture if of_mixtures else _draw)(generator, seed)
        found.setdefault(case.key, case)
    return list(found.values())


def _draw(generator: random.Random, seed: int) -> Case:
    pick = generator.choice
    name = pick(sorted(DRAWN_MODELS))
    model = DRAWN_MODELS[name]
    parallel = _draw_layout(generator, model)
    rows = pick(("padded", "packed", "shared"))
    precision = pick(sorted(PRECISIONS))
    pairs = StepPairs(0, pick((256, 512)), pick((512, 1024, 1536)))
    train = _training(rows, recompute=pick(("none", "selective", "full")), peft=pick((None, None, "lora")))
    rank = generator.randrange(parallel.world_size)
    case = Case(name, model, parallel, train, pairs, rank, PRECISIONS[precision], pick(("sppo", "dpo")))
    return _named(case, rows, precision, seed)


def _draw_mixture(generator: random.Random, seed: int) -> Case:
    """In bf16, all weights, by core: nothing else trains one."""
    pick = generator.choice
    name = pick(sorted(DRAWN_MIXTURES))
    model = DRAWN_MIXTURES[name]
    parallel = _draw_layout(generator, model)
    ranks = parallel.tensor * parallel.context * parallel.data
    parallel = parallel.model_copy(update={"expert": pick([size for size in (1, 2, 4, 8) if ranks % size == 0])})
    rows = pick(("padded", "packed", "shared"))
    pairs = StepPairs(0, pick((256, 512)), pick((512, 1024, 1536)))
    train = _training(rows, recompute=pick(("none", "selective", "full")), peft=None)
    rank = generator.randrange(parallel.world_size)
    case = Case(name, model, parallel, train, pairs, rank, loss=pick(("sppo", "dpo")), trainer="core")
    return _named(case, rows, "bf16", seed)


def _draw_layout(generator: random.Random, model: dict[str, Any]) -> Parallel:
    pick = generator.choice
    tensor = pick([size for size in (1, 2, 4, 8) if model["num_key_value_heads"] % size == 0])
    pipeline = pick([size for size in (1, 2, 4) if model["num_hidden_layers"] % size == 0])
    chunks = [size for size in (1, 2) if pipeline > 1 and model["num_hidden_layers"] % (pipeline * size) == 0]
    virtual = pick(chunks) if chunks else 1
    return Parallel(
        tensor=tensor,
        pipeline=pipeline,
        virtual_pipeline=virtual if virtual > 1 else None,
        context=pick((1, 1, 2)),
        data=pick((1, 2, 4)),
        sequence=tensor > 1,
        overlap_communication=pick((False, True)),
    )


def _training(rows: str, *, recompute: Any, peft: Any) -> Train:
    return Train(
        packing=rows != "padded",
        share_prompt=rows == "shared",
        pack_tokens=8192,
        recompute=recompute,
        peft=peft,
        loggers=(),
    )


def _named(case: Case, rows: str, precision: str, seed: int) -> Case:
    """With the pairs of two microbatches for each stage."""
    parallel, train, pairs = case.parallel, case.train, case.pairs
    of_pair = pairs.prompt + 1 + 2 * pairs.response if train.share_prompt else 2 * (pairs.prompt + pairs.response)
    of_row = 8192 // of_pair if train.packing else 1
    count = 2 * parallel.pipeline * parallel.data * of_row
    experts = f" EP{parallel.expert}" if case.trainer == "core" else ""
    chunks = parallel.virtual_pipeline or 1
    layout = f"TP{parallel.tensor} PP{parallel.pipeline}x{chunks} CP{parallel.context} DP{parallel.data}{experts}"
    settings = f"{rows} {pairs.prompt}+{pairs.response} {precision} {train.recompute} {train.peft or 'whole'}"
    return replace(
        case,
        name=f"{case.name}, {layout}, {settings}, {case.loss}, seed {seed}",
        train=train.model_copy(update={"global_batch_size": count}),
        pairs=replace(pairs, count=count),
    )


def main() -> None:
    collected = Collected(DRAWN)
    print(HEAD, end="")
    for case in drawn_cases():
        ledger = collected.get(case.key)
        if ledger is None:
            ledger = rehearse(case)
            collected.add(ledger)
        print(row(case, ledger), end="", flush=True)


if __name__ == "__main__":
    main()
