"""The rehearsal's ledger against the truth: the most that one GPU holds in two steps of a 1B model.

The training is the rehearsed case itself, by the same functions; only the GPU is real. The ledger, which `make
rehearse` writes, leaves out what libraries take beside torch's allocator and what the allocator cannot join; so does
torch's own count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu.place import Place, parser, place_of
from benchmarks.gpu.train_step import reason
from benchmarks.gpu.world import write_random
from benchmarks.table import Benchmark, Goal
from nemo_sspo.estimate.rank import StepPairs
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.nemo.training import train_rank
from nemo_sspo.megatron.observers.standard import standard_observers
from nemo_sspo.megatron.observers.step_log import read_log
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from tests.rehearsal.case import job_of
from tests.rehearsal.cases import TINY_MODELS, one_gpu
from tests.rehearsal.committed import LEDGERS, committed

if TYPE_CHECKING:
    from tests.rehearsal.case import Case

WITHIN = 0.05
"""Share of the ledger's peak by which the truth may differ."""
_GIB = 2**30


def case_at(place: Place, folder: Path) -> Case:
    """What is rehearsed and trained; a tiny model where nothing is measured."""
    case = replace(one_gpu(), checkpoint=folder / "nemo")
    if not place.small:
        return case
    train = case.train.model_copy(update={"pack_tokens": 128})
    return replace(case, model=TINY_MODELS["llama"], train=train, pairs=StepPairs(case.pairs.count, 24, 8))


def rehearsed(key: str, folder: Path = LEDGERS) -> list[float]:
    """GiB of each step's peak in the committed ledger."""
    ledger = committed(key, folder)
    if ledger is None:
        raise SystemExit(f"error: no ledger of {key} lies in tests/rehearsal; make rehearse writes it")
    return [step.peak_bytes / _GIB for step in ledger.steps]


def train(case: Case, folder: Path) -> TrainingJob:
    """Train on one rank: forked where there is no GPU, else this process, which torchrun has started."""
    job = job_of(case, folder)
    on_every_rank(lambda: train_rank(job, standard_observers(job)), 1)
    return job


def measured(place: Place, folder: Path) -> list[float]:
    """GiB that the process had held at most when each step ended."""
    case = case_at(place, folder)
    write_random(case.model, folder)
    if place.device == "cuda":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
        command = [*launcher, "-m", __spec__.name, "--train", "--folder", str(folder), *_options(place)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"error: {reason(ended.stdout)}")
        file = job_of(case, folder).timings_file
    else:
        file = train(case, folder).timings_file
    return [line["peak_memory_gib"] for line in read_log(file)]


def _options(place: Place) -> list[str]:
    return ["--device", place.device, *(["--small"] if place.small else [])]


def compared(expected: Sequence[float], found: Sequence[float], place: Place) -> Benchmark:
    """A row for each step. The count of a process never falls, so the ledger's is taken up to each step too."""
    until = [max(expected[: step + 1]) for step in range(len(expected))]
    rows = [
        (f"{step}", ledger, truth, f"{truth / ledger - 1:+.1%}")
        for step, (ledger, truth) in enumerate(zip(until, found, strict=True), start=1)
    ]
    off = found[-1] / until[-1] - 1
    met = abs(off) <= WITHIN if place.counts else None
    return Benchmark(
        name="gpu.ledger",
        claim="Memory of a training step, rehearsed and real",
        setting="Llama 3.2 1B's shape, random weights, one GPU, packed rows of 8,192 tokens; peak by torch's own count",
        columns=("step", "ledger, GiB", "GPU, GiB", "difference"),
        rows=rows,
        goals=[Goal("peak, GPU against ledger", f"within {WITHIN:.0%}", f"{off:+.1%}", met)],
        notes=[
            "The ledger has no NCCL buffers, no workspaces of cuBLAS and no fragmentation; torch counts none of NCCL."
        ],
    )


def main() -> None:
    options_ = parser(__doc__)
    options_.add_argument("--folder", type=Path, help="where weights and logs go (10 GB); without it, a temporary one")
    options_.add_argument("--train", action="store_true", help=argparse.SUPPRESS)  # what torchrun starts
    options = options_.parse_args()
    place = place_of(options)
    if options.train:
        train(case_at(place, options.folder), options.folder)
        return
    expected = rehearsed(one_gpu().key)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ledger.") as folder:
        place.publish(compared(expected, measured(place, Path(folder)), place))


if __name__ == "__main__":
    main()
