"""Whole optimizer steps of an 8B-shaped Llama, by the code that a run trains with: data, model, loss, AdamW and logs.

Each variant is a training of its own, in a process of its own. What this package refuses on this machine, and what
does not fit, is listed under the table.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.gpu.place import Place, place_of
from benchmarks.gpu.world import World, objective, parser, random_pairs, write_policy
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Precision
from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.nemo.training import train_rank
from nemo_sspo.megatron.observers.standard import standard_observers
from nemo_sspo.megatron.observers.step_log import read_log
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from nemo_sspo.objective.repulsion import repulsion_weight

BASE = "bf16, packed"
FP8 = ("fp8, tensorwise",)
WARM_UP = 2
"""Steps that are not timed: they allocate and compile."""
_PEAK = "peak_memory_gib"  # since the process started: the same in every line
_RAISED = re.compile(r"(\[rank\d+\]: )?[\w.]+(Error|Exception): \S")


@dataclass(frozen=True)
class Variant:
    """What differs from the base."""

    train: dict[str, Any] = field(default_factory=dict)
    precision: Precision = field(default_factory=Bf16Precision)
    repulsion: float = 1.0


VARIANTS = {
    BASE: Variant(),
    "padded": Variant({"packing": False}),
    "lambda = 0": Variant(repulsion=0.0),
    "recompute head": Variant({"head": "recompute"}),
    "head tiles of 1024": Variant({"head_chunk_tokens": 1024}),
    "prompts shared": Variant({"share_prompt": True}),
    "fp8, tensorwise": Variant(precision=Fp8Precision(recipe="tensorwise")),
}


@dataclass(frozen=True)
class Steps:
    """What a variant's training wrote down, without its warm-up; or why there was none."""

    timings: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None

    def mean(self, name: str) -> float | None:
        """Over the timed steps; None where the machine has no such figure."""
        found = [line[name] for line in self.timings if name in line]
        return fmean(found) if found else None


def train(variant: Variant, world: World, folder: Path) -> None:
    """Train on one rank: forked where there is no GPU, else this process, which torchrun has started."""
    output = folder / "output"
    job = TrainingJob(
        pairs=random_pairs(world),
        weights=folder / "nemo",
        hf_dir=folder / "hf",
        output=output / "nemo",
        scratch=output / "scratch",
        logs=output / "logs",
        run_name="benchmark",
        train=world.settings(**variant.train),
        parallel=Parallel(),
        precision=variant.precision,
        objective=objective(),
        repulsion_weight=partial(repulsion_weight, weight=variant.repulsion, schedule="constant"),
        seed=0,
        progress=Progress(None),
    )
    on_every_rank(lambda: train_rank(job, standard_observers(job)), 1)


def measured(name: str, world: World, folder: Path, place: Place) -> Steps:
    """Train a variant and read its logs."""
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)  # checkpoints are large
    try:
        if place.device == "cuda":
            _train_in_a_process(name, world, folder, place)
        else:
            train(VARIANTS[name], world, folder)
    except UserError as error:
        return Steps(refusal=str(error))
    timings, metrics = (read_log(output / "scratch" / f"{log}.jsonl")[WARM_UP:] for log in ("steps", "metrics"))
    return Steps(timings, metrics)


def _train_in_a_process(name: str, world: World, folder: Path, place: Place) -> None:
    """Start one rank as a run starts it. Raises UserError with what it said last, where it failed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    this = ["-m", __spec__.name, "--variant", name, "--folder", str(folder), "--layers", str(world.layers)]
    ended = subprocess.run(
        [*launcher, *this, "--device", place.device, *(["--small"] if place.small else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise UserError(reason(ended.stdout))


def reason(log: str) -> str:
    """What a rank said last before it ended, out of all that it and torchrun printed."""
    lines = [line for line in log.splitlines() if re.search(r"\w", line)]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if _RAISED.match(line)]
    return (errors or raised or lines or ["no output"])[-1]


def table(found: dict[str, Steps]) -> list[tuple[Cell, ...]]:
    """A row for each variant; empty where it did not train."""
    rows: list[tuple[Cell, ...]] = []
    for name, steps in found.items():
        if steps.refusal is not None:
            rows.append((name, *[None] * 6))
            continue
        figures = (steps.mean("seconds"), steps.mean("tokens_per_second"), steps.mean("mfu"), steps.mean(_PEAK))
        rows.append((name, *figures, steps.metrics[-1]["loss"], steps.metrics[-1]["grad_norm"]))
    return rows


def goals(found: dict[str, Steps], place: Place) -> list[Goal]:
    """The bound; a variant that did not train proves nothing."""

    def goal(what: str, wanted: str, value: float | None, is_met: Callable[[float], bool]) -> Goal:
        measured_ = "not measured" if value is None else f"{value:.3f}"
        return Goal(what, wanted, measured_, is_met(value) if value is not None and place.counts else None)

    def ratio(name: str, first: str, second: str) -> float | None:
        values = [found[variant].mean(name) if variant in found else None for variant in (first, second)]
        return None if values[0] is None or values[1] is None else values[0] / values[1]

    return [
        goal("MFU, bf16", ">= 0.5", found[BASE].mean("mfu"), lambda value: value >= 0.5),
        goal("seconds, padded / packed", ">= 1.7", ratio("seconds", "padded", BASE), lambda value: value >= 1.7),
        goal("seconds, lambda = 1 / 0", "<= 1.01", ratio("seconds", BASE, "lambda = 0"), lambda value: value <= 1.01),
        goal("peak, lambda = 1 / 0", "<= 1.005", ratio(_PEAK, BASE, "lambda = 0"), lambda value: value <= 1.005),
        *[
            goal(f"seconds, bf16 / {name}", ">= 1.3", ratio("seconds", BASE, name), lambda value: value >= 1.3)
            for name in FP8
        ],
    ]


def run(place: Place, world: World, names: Sequence[str], folder: Path) -> Benchmark:
    """Train every variant."""
    write_policy(world, folder)
    found = {name: measured(name, world, folder, place) for name in names}
    if found[BASE].refusal is not None:
        raise SystemExit(f"error: {BASE}: {found[BASE].refusal}")
    return Benchmark(
        name="gpu.train_step",
        claim="Whole training step",
        setting=(
            f"Llama of H = {world.hidden}, {world.heads} heads and {world.groups} groups, FFN {world.ffn}, V = "
            f"{world.vocab}, cut to {world.layers} layers; random weights. {world.pairs_per_step} pairs a step, of "
            f"lengths like UltraFeedback's; rows of {world.settings().pack_tokens} tokens (padded: a pair at a time). "
            "AdamW in fp32, one GPU, nothing recomputed. Mean of "
            f"{world.steps - WARM_UP} steps after {WARM_UP}, with everything that `nemo-sspo run` does in them."
        ),
        columns=("variant", "s / step", "tokens/s", "MFU", "peak GiB", "last loss", "last gradient norm"),
        rows=table(found),
        goals=goals(found, place),
        notes=[
            "MFU is what the model needs, without padding and recomputation, of the dense bf16 peak, also for FP8. A "
            "model of few layers spends more of its time in the head than the whole one.",
            *[f"{name}: {steps.refusal}" for name, steps in found.items() if steps.refusal is not None],
        ],
    )


def main() -> None:
    options_ = parser(__doc__)
    options_.add_argument("--variant", choices=list(VARIANTS), help=argparse.SUPPRESS)  # what torchrun starts
    options = options_.parse_args()
    place = place_of(options)
    world = World.of(place, options.layers)
    if options.variant is not None:
        try:
            train(VARIANTS[options.variant], world, options.folder)
        except UserError as error:
            raise SystemExit(f"error: {error}") from None
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="train_step.") as folder:
        place.publish(run(place, world, list(VARIANTS), Path(folder)))


if __name__ == "__main__":
    main()
