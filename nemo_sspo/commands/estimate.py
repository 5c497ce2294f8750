"""``nemo-sspo plan --estimate``: what a run will take, as tables for people or as JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.errors import UserError
from nemo_sspo.words import counted

if TYPE_CHECKING:
    from nemo_sspo.config.experiment import Experiment
    from nemo_sspo.estimate.fit import Held, Layout
    from nemo_sspo.estimate.phases import Lengths, Phase
    from nemo_sspo.estimate.run import Estimate
    from nemo_sspo.estimate.speeds import Speeds

_GIB = 2**30
_LENGTHS = "180,340"
_SHOWN = 5
_IDLE = 0.25
"""Share of a step's time or tokens from which it is told that GPUs wait or compute padding."""


def add_options(plan: argparse.ArgumentParser) -> None:
    """Of ``nemo-sspo plan``."""
    plan.add_argument("--estimate", action="store_true", help="memory, time, GPU-hours and disk, estimated")
    plan.add_argument("--speeds", type=Path, help="with --estimate: a file of `nemo-sspo profile`")
    plan.add_argument(
        "--lengths",
        help=f"with --estimate: mean tokens of a prompt and a response ({_LENGTHS}, as of 8B on UltraFeedback)",
    )
    plan.add_argument(
        "--prompts-count", type=int, help="with --estimate: prompts of an iteration, if they are not here"
    )


def refuse_without_estimate(options: argparse.Namespace) -> None:
    """Raise UserError for an option of the estimate beside a plain plan."""
    given = {"--speeds": options.speeds, "--lengths": options.lengths, "--prompts-count": options.prompts_count}
    if named := [name for name, value in given.items() if value is not None]:
        raise UserError(f"{', '.join(named)}: nothing of a plan depends on that; add --estimate")


def show_estimate(experiment: Experiment, options: argparse.Namespace) -> int:
    """Raises UserError where sizes, lengths or speeds cannot be read."""
    from nemo_sspo.estimate.run import estimate
    from nemo_sspo.estimate.speeds import PUBLISHED, read_speeds

    speeds = read_speeds(options.speeds or PUBLISHED)
    found = estimate(experiment, speeds, _lengths(options.lengths or _LENGTHS), options.prompts_count)
    if options.json:
        print(json.dumps(_as_data(found, speeds), indent=1))
        return 0
    console = Console()
    without = "" if experiment.cluster.has_gpus else ", though this cluster has no GPU"
    say(console, f"An estimate, for {speeds.gpu}{without}: {_origin(speeds)}.")
    _show_memory(console, found, speeds)
    _show_time(console, experiment, found)
    _show_rest(console, found)
    return 0


def _lengths(text: str) -> Lengths:
    from nemo_sspo.estimate.phases import Lengths

    try:
        prompt, response = (int(part) for part in text.split(","))
    except ValueError:
        prompt = response = 0
    if prompt < 1 or response < 1:
        raise UserError(f"--lengths {text}: give the mean tokens of a prompt and of a response, as 180,340")
    return Lengths(prompt, response)


def _origin(speeds: Speeds) -> str:
    if speeds.published:
        return "published figures, none of them measured here (`nemo-sspo profile` measures yours)"
    return "figures that were measured"


def _show_memory(console: Console, found: Estimate, speeds: Speeds) -> None:
    held, memory = found.held, found.held.memory
    console.print()
    rows = [
        ("weights", _gib(memory.weights)),
        ("gradients", _gib(memory.gradients)),
        ("optimizer", _gib(memory.optimizer)),
        ("activations", _gib(memory.activations)),
        ("head", _gib(memory.head)),
        ("workspaces", _gib(memory.workspaces)),
        ("allowed for the rest", _gib(held.allowance)),
        ("in all", f"{_gib(held.total)} of {speeds.memory_gib:.1f}"),
    ]
    print_wide(table_of((f"training, rank {held.rank.number}", "GiB"), rows), console)
    verdict = "fits" if held.fits(speeds) else "does not fit"
    say(console, f"It {verdict}. Allowed for: CUDA's context, NCCL's buffers, fragmentation.", hanging=2)
    layouts = [_row(layout) for layout in found.layouts[:_SHOWN]]
    if not layouts:
        say(console, f"No layout over {counted(held.rank.parallel.world_size, 'GPU')} fits.", hanging=2)
        return
    console.print()
    headings = ("layouts that fit, fastest first", "recompute", "GiB", "s/step", "waiting")
    print_wide(table_of(headings, layouts), console)


def _row(layout: Layout) -> tuple[str, ...]:
    parallel = layout.parallel
    name = f"tensor={parallel.tensor} pipeline={parallel.pipeline} data={parallel.data}"
    if parallel.virtual_pipeline:
        name += f" virtual_pipeline={parallel.virtual_pipeline}"
    if parallel.context > 1:
        name += f" context={parallel.context}"
    if parallel.expert > 1:
        name += f" expert={parallel.expert}"
    time = layout.time
    return name, layout.recompute, _gib(layout.held.total), f"{time.total:.1f}", f"{time.waiting_share:.0%}"


def _show_time(console: Console, experiment: Experiment, found: Estimate) -> None:
    console.print()
    rows = [*(_phase_row(f"once: {phase.stage}", phase) for phase in found.before)]
    rows += [_phase_row(phase.stage, phase) for phase in found.phases]
    of_run = f"the run, {counted(found.iterations, 'iteration')}"
    rows.append((of_run, "", "", _minutes(found.seconds), _hours(found.gpu_hours)))
    print_wide(table_of(("stage", "M tokens", "GPUs", "minutes", "GPU-hours"), rows), console)
    step = found.step
    say(
        console,
        f"training step: {step.total:.2f} s ({step.computing:.2f} computing, {step.inside:.2f} between ranks of a "
        f"replica, {step.waiting:.2f} waiting for other stages, {step.outside:.2f} between replicas and optimizer)",
        hanging=2,
    )
    if step.waiting_share > _IDLE:
        say(
            console,
            f"GPUs wait {step.waiting_share:.0%} of a step: {counted(experiment.train.global_batch_size, 'pair')} make "
            f"{counted(found.batch.microbatches, 'microbatch', 'microbatches')} a replica for "
            f"{experiment.parallel.pipeline} stages; fewer GPUs lose little",
            hanging=2,
        )
    if 1 - found.filled > _IDLE:
        say(console, f"{1 - found.filled:.0%} of the tokens in a step are padding or fill a row up", hanging=2)


def _phase_row(name: str, phase: Phase) -> tuple[object, ...]:
    tokens = f"{phase.tokens / 1e6:,.1f}" if phase.tokens else ""
    return name, tokens, phase.gpus or "", _minutes(phase.seconds), _hours(phase.gpu_hours)


def _show_rest(console: Console, found: Estimate) -> None:
    disk, lost = found.disk, found.failures
    say(
        console,
        f"disk: {disk.weights / _GIB:,.0f} GiB of weights, {disk.responses / _GIB:,.1f} of responses and scores; "
        f"{disk.states / _GIB:,.0f} of states while an iteration trains",
        hanging=2,
    )
    say(console, f"host: {found.host_bytes / _GIB:,.0f} GiB where the policy is imported or exported", hanging=2)
    if lost is not None:
        say(
            console,
            f"failures: one in {lost.hours_between:,.0f} hours of training; a state every "
            f"{lost.interval_seconds / 60:.0f} minutes (train.checkpoint_every_steps="
            f"{lost.steps_between_states(found.step.total)}) loses least, {lost.lost_share:.2%} of the time",
            hanging=2,
        )


def _as_data(found: Estimate, speeds: Speeds) -> dict[str, Any]:
    return {
        "estimate_for": {"gpu": speeds.gpu, "published": speeds.published, "sources": speeds.sources},
        "parameters": found.parameters,
        "memory": {**_held(found.held), "fits": found.held.fits(speeds)},
        "step_seconds": asdict(found.step),
        "waiting_share": found.step.waiting_share,
        "filled_share": found.filled,
        "before": [asdict(phase) | {"gpu_hours": phase.gpu_hours} for phase in found.before],
        "iteration": [asdict(phase) | {"gpu_hours": phase.gpu_hours} for phase in found.phases],
        "seconds": found.seconds,
        "gpu_hours": found.gpu_hours,
        "iterations": found.iterations,
        "disk_bytes": asdict(found.disk),
        "host_bytes": found.host_bytes,
        "failures": found.failures and asdict(found.failures),
        "layouts": [
            {
                "parallel": layout.parallel.model_dump(),
                "recompute": layout.recompute,
                "memory": _held(layout.held),
                "step_seconds": layout.time.total,
            }
            for layout in found.layouts
        ],
    }


def _held(held: Held) -> dict[str, int]:
    return {"rank": held.rank.number, **asdict(held.memory), "allowance": held.allowance, "total": held.total}


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}"
