"""Ranks of real models in layouts that a seed draws: what the estimate is held against.

    python -m tests.rehearsal -m tests.rehearsal.drawn SEED [COUNT]

rehearses those that are not in ``ledgers/drawn.jsonl`` yet, adds them there, and prints the estimate beside each.
"""

from __future__ import annotations

import random
import sys
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
SEED, COUNT = 1, 12
"""Of those that are committed."""
DRAWN_MODELS: dict[str, dict[str, Any]] = {
    **MODELS,
    **{name: PUBLISHED[name] for name in ("qwen2.5-7b", "qwen3-8b", "gemma-2-9b")},
}


def drawn_cases(seed: int = SEED, count: int = COUNT) -> list[Case]:
    """So many different ones, always the same of a seed."""
    generator = random.Random(seed)
    found: dict[str, Case] = {}
    while len(found) < count:
        case = _draw(generator, seed)
        found.setdefault(case.key, case)
    return list(found.values())


def _draw(generator: random.Random, seed: int) -> Case:
    pick = generator.choice
    name = pick(sorted(DRAWN_MODELS))
    model = DRAWN_MODELS[name]
    tensor = pick([size for size in (1, 2, 4, 8) if model["num_key_value_heads"] % size == 0])
    pipeline = pick([size for size in (1, 2, 4) if model["num_hidden_layers"] % size == 0])
    chunks = [size for size in (1, 2) if pipeline > 1 and model["num_hidden_layers"] % (pipeline * size) == 0]
    virtual = pick(chunks) if chunks else 1
    parallel = Parallel(
        tensor=tensor,
        pipeline=pipeline,
        virtual_pipeline=virtual if virtual > 1 else None,
        context=pick((1, 1, 2)),
        data=pick((1, 2, 4)),
        sequence=tensor > 1,
        overlap_communication=pick((False, True)),
    )
    rows = pick(("padded", "packed", "shared"))
    precision = pick(sorted(PRECISIONS))
    pairs = StepPairs(0, pick((256, 512)), pick((512, 1024, 1536)))
    train = Train(
        packing=rows != "padded",
        share_prompt=rows == "shared",
        pack_tokens=8192,
        recompute=pick(("none", "selective", "full")),
        peft=pick((None, None, "lora")),
        loggers=(),
    )
    of_pair = pairs.prompt + 1 + 2 * pairs.response if train.share_prompt else 2 * (pairs.prompt + pairs.response)
    of_row = 8192 // of_pair if train.packing else 1
    count = 2 * parallel.pipeline * parallel.data * of_row
    rank = generator.randrange(parallel.world_size)
    layout = f"TP{tensor} PP{pipeline}x{virtual} CP{parallel.context} DP{parallel.data}"
    settings = f"{rows} {pairs.prompt}+{pairs.response} {precision} {train.recompute} {train.peft or 'whole'}"
    loss = pick(("sppo", "dpo"))
    return Case(
        f"{name}, {layout}, {settings}, {loss}, seed {seed}",
        model,
        parallel,
        train.model_copy(update={"global_batch_size": count}),
        StepPairs(count, pairs.prompt, pairs.response),
        rank,
        PRECISIONS[precision],
        loss,
    )


def main(seed: int = SEED, count: int = COUNT) -> None:
    collected = Collected(DRAWN)
    print(HEAD, end="")
    for case in drawn_cases(seed, count):
        ledger = collected.get(case.key)
        if ledger is None:
            ledger = rehearse(case)
            collected.add(ledger)
        print(row(case, ledger), end="", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
