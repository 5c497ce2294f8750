"""Print the measured parity of every layout as a Markdown table: `python -m tests.distributed.parity_table`."""

from __future__ import annotations

import warnings
from dataclasses import replace

import megatron.core
import torch

from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.compare import GRADIENT_TOLERANCE, LOSS_TOLERANCE, deviation, rounding_of_truth, truth_of
from tests.distributed.ranks import Case, run_cases

CASES = [
    Case(f"{name} {size}{' tied' if tied else ''}", packed=name == "packed", micro_batch_size=size, tied=tied)
    for name in ("padded", "packed")
    for size in (1, 2, 4)
    for tied in (False, True)
]
GEMMA = [
    Case(f"gemma {name} {size}", architecture=GEMMA2, tied=True, packed=name == "packed", micro_batch_size=size)
    for name in ("padded", "packed")
    for size in (1, 2, 4)
]
for both_heads in (CASES, GEMMA):
    both_heads += [replace(c, name=f"{c.name} one pass", one_pass=True) for c in both_heads if c.micro_batch_size == 2]
FIRST_STEP = [Case("first", at_reference=True), Case("first packed", at_reference=True, packed=True)]


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print("# Parity with one process\n")
    print(
        f"`make parity` writes this page. megatron-core {megatron.core.__version__}, torch {torch.__version__}, gloo,"
        f" fp32. Largest relative difference from one plain process (allowed: loss {LOSS_TOLERANCE:.0e}, every gradient"
        f" {GRADIENT_TOLERANCE:.0e}) over microbatches of 1, 2 and 4 pairs, tied and untied embeddings, both heads.\n"
    )
    print("## Llama\n")
    _table(LLAMA, CASES, FIRST_STEP)
    print(
        "\n## Gemma 2\n\nIts embeddings are tied. Attention and final logits are capped where they begin to differ, and"
        " the window is shorter than most responses.\n"
    )
    _table(GEMMA2, GEMMA, [replace(case, architecture=GEMMA2, tied=True) for case in FIRST_STEP])


def _table(architecture: Architecture, cases: list[Case], first_step: list[Case]) -> None:
    print("| layout | ranks | loss, padded | loss, packed | gradient, padded | gradient, packed | first step's d |")
    print("|---|---|---|---|---|---|---|")
    floor = rounding_of_truth(architecture)
    print(f"| fp32 truth against float64 | 1 | {floor.loss:.1e} | | {floor.gradient:.1e} | | |")
    for layout in (world.ONE_RANK, *world.LAYOUTS):
        results = run_cases(layout, cases + first_step)
        found = {case.name: deviation(results[case.name], truth_of(case)) for case in cases}
        cells = [
            f"{max(getattr(found[case.name], measure) for case in cases if case.packed == packed):.1e}"
            for measure in ("loss", "gradient")
            for packed in (False, True)
        ]
        d = max(abs(results[case.name].metrics[side]) for case in first_step for side in ("d_chosen", "d_rejected"))
        print(f"| {layout.name} | {layout.world_size} | {' | '.join(cells)} | {d:g} |", flush=True)


if __name__ == "__main__":
    main()
