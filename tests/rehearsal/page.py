"""docs/memory.md: `python -m tests.rehearsal.page` writes it of the ledgers that are committed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases
from tests.rehearsal.committed import LEDGERS, Collected, committed
from tests.rehearsal.drawn import DRAWN, drawn_cases
from tests.rehearsal.estimated import HEAD as ESTIMATED
from tests.rehearsal.estimated import row as estimated_row
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.models import OF_MODELS, model_cases
from tests.rehearsal.table import table

MEMORY_PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
_GIB = 2**30


def memory_page() -> str:
    """docs/memory.md, of the committed ledgers."""
    presets, models = _committed(preset_cases(), LEDGERS), _committed(model_cases(), OF_MODELS)
    return _PAGE.format(
        table=table(presets),
        models=table(models),
        estimated=_estimated([*presets, *models]),
        sent="".join(map(_sent, presets)),
    )


def _committed(cases: Sequence[Case], folder: Path) -> list[Ledger]:
    ledgers = (committed(case.key, folder) for case in cases)
    return [ledger for ledger in ledgers if ledger is not None]


def _estimated(ledgers: Sequence[Ledger]) -> str:
    drawn = Collected(DRAWN)
    known = {ledger.key: ledger for ledger in (*ledgers, *drawn)}
    cases = [*preset_cases(), *model_cases(), *drawn_cases()]
    return ESTIMATED + "".join(estimated_row(case, known[case.key]) for case in cases if case.key in known)


def _sent(ledger: Ledger) -> str:
    step = ledger.steps[1]
    parts = [
        f"{name} {step.calls[name]:,} x, {size / _GIB:.3f}" for name, size in step.bytes_sent.items() if size >= 2**20
    ]
    return f"- **{ledger.key}** ({ledger.microbatches} microbatches): {'; '.join(parts) or 'nothing to speak of'}\n"


_PAGE = """# What a rank holds, computes and sends

Made by `make rehearse`; not to be edited. One rank runs the project's own training through NeMo's trainer (a mixture of
experts through core's), two optimizer steps on a pretended H100 (`tests/rehearsal`): its tensors have shapes and types,
and no values. What is allocated is counted in torch's blocks of 512 bytes, by what it is for. `make test-rehearsal`
does the presets' and one of the others anew, and a figure that differs fails; what a step sends is also held against a
formula of layout, model and batch (`nemo_sspo/estimate/traffic`).

Every row is as long as it may be: pairs of 1,024 + 1,024 tokens, two of which fill a packed row of 8,192. Steps have
2 x PP microbatches; whole batches, which `make rehearse-all` ran, take less than a thousandth more memory, for the
token ids of their microbatches. GiB are 2^30 bytes; FLOP and bytes sent are of one step. Step 1 allocates Adam's state
at its end, step 2 computes beside it.

{table}
First and last rank of every other model of `conf/model`, and of the presets' with DPO:

{models}
Products in attention are counted as if no key were masked, which is twice what a causal kernel computes.

## Left out
NCCL's buffers (up to a few GiB), cuBLAS's and cuDNN's workspaces beside those that Transformer Engine allocates, the
CUDA context (about half a GiB), kernels' private memory, and fragmentation: torch reserves more than it has handed out.
Nothing here is a time. The figures have not been held against a GPU yet: `llama3-1b` on one GPU is there for that.

## What the planner says of the same ranks
`nemo-sspo plan --estimate` (`nemo_sspo/estimate`) has no pretended GPU: it computes memory, products and traffic from
layout, sizes and settings. Its errors at the peak of step 2, for these ranks and for layouts of real models that a seed
drew after the planner's last change; CI holds them to 5 % of memory, 1 % of products and 2 % of bytes, and all tiny
ranks too.

{estimated}
## Sent in step 2
Calls of a process group by operation and group, and what the rank hands over, in GiB; below 1 MiB left out.

{sent}
## Reached, and not reached
Two steps of training were executed on ranks of PP, VPP, TP with SP, CP, DP overlapped, packed rows, shared prompts,
FP8 by tensor and by block, recomputation, LoRA and both heads: every pair of these settings stands in one of a few tiny
layouts. Each of these also loads an imported policy, computes reference log-probs, saves a state in the background and
the final checkpoint, and resumes: its step takes what it took before. Rank 0 resumes from the state that it saved; any
other one from the state that the first of its replicas, in a process of its own, leaves when it is told to stop.

`make test` has them, the planted faults, and `experiment=quickstart-gpu` on one GPU and on the first and last of four,
in bf16 and FP8 (`make test-rehearsal`). `make rehearse-all` goes on from there, in an order that makes its beginning
count: the combinations in which every three of these settings meet, every four, then all others. Its figures are in
`tests/rehearsal/ledgers/tiny.jsonl`, one line for each layout, and fail the tests where they no longer hold.

Not reached: the insides of kernels (Transformer Engine's compiled module, cuDNN, Triton, flex-attention's, NCCL, Apex)
and what float tensors hold: a float that the host reads is 1. One rank runs at a time, so what ranks say to each other
is taken to be what this one says; that they say the same is the business of `tests/distributed`.
"""


if __name__ == "__main__":
    MEMORY_PAGE.write_text(memory_page())
