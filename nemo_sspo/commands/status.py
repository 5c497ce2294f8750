"""``nemo-sspo status``: how a run stands, step by step, here or on a Slurm cluster."""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.commands.report import show_warnings
from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.local.status import local_status
from nemo_sspo.launch.slurm.commands import NoSlurm, final_state, live_jobs
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.status import slurm_status
from nemo_sspo.launch.slurm.submit import run_paths
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.launch.step_status import StepStatus

_ENDED = {"published", "left out"}
"""States of steps that need no more work."""
_ONE_BY_ONE = {"running", "failed"}
"""States in which each shard is shown in a row of its own, because its details are its own."""
_SHARD = re.compile(r"\.(\d{5})$")


def show_status(options: argparse.Namespace) -> int:
    """Print the state of every step, once or again and again."""
    experiment = given_experiment(options.overrides, options.config_dir)
    console = Console()
    while True:
        try:
            rows = step_states(experiment)
        except UserError as error:
            if options.watch is None or isinstance(error, NoSlurm):
                raise
            print(f"{error} (asking again)", file=sys.stderr)  # the controller may only be restarting
            time.sleep(max(1.0, options.watch))
            continue
        if options.json:
            print(json.dumps([asdict(row) for row in rows], indent=1))
        else:
            if options.watch is not None and console.is_terminal:
                console.clear()
            show_steps(list(folded(rows)), console)
            if advice := _advice(rows, experiment):
                say(console, advice)
            if any(row.state == "published" for row in rows):
                show_warnings(console, RunLayout(experiment.run_dir))
        if options.watch is None or all(row.state in _ENDED for row in rows):
            return 0
        time.sleep(max(1.0, options.watch))


def step_states(experiment: Experiment) -> list[StepStatus]:
    """Every step of a run, here or on its cluster."""
    if experiment.cluster.kind == "local":
        return local_status(experiment)
    place = run_paths(experiment)
    return slurm_status(jobs(experiment), place, live_jobs(place.run), final_state, freshness_of(experiment))


def failed_steps(experiment: Experiment) -> dict[str, str]:
    """Steps that failed and have not begun again, and why: what `status` says of them. Slurm need not be there."""
    try:
        rows = step_states(experiment)
    except UserError:
        rows = slurm_status(jobs(experiment), run_paths(experiment), None, str, freshness_of(experiment))
    return {row.step: row.detail for row in rows if row.state == "failed"}


def folded(rows: Sequence[StepStatus]) -> Iterator[StepStatus]:
    """Merge neighbouring shards with equal cells into one row: ``iter_1.rollout.0-39``."""
    for (step, state, *_), group in groupby(rows, _cells):
        shards = list(group)
        if len(shards) == 1 or state in _ONE_BY_ONE:
            yield from shards
        else:
            numbers = [int(_SHARD.search(row.step)[1]) for row in shards]  # type: ignore[index]
            yield replace(shards[0], step=f"{step}.{shard_ranges(numbers)}", job=shards[0].job.partition("_")[0])


def _cells(row: StepStatus) -> tuple[str, ...]:
    return _SHARD.sub("", row.step), row.state, row.detail, str(row.restarts)


def show_steps(rows: Sequence[StepStatus], console: Console) -> None:
    """The table, and below it what there is to say of single steps: that is longer than a column."""
    cells = [(row.step, row.state, row.job, _progress(row), _left(row), str(row.restarts or "")) for row in rows]
    print_wide(table_of(("step", "state", "job", "progress", "left", "restarts"), cells), console)
    told: dict[str, list[str]] = {}
    for row in rows:
        rate = f"{row.per_second:.3g} {row.unit} a second" if row.per_second is not None else ""
        if said := "; ".join(filter(None, (rate, row.detail))):
            told.setdefault(said, []).append(row.step)
    for said, steps in told.items():
        more = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
        say(console, f"{steps[0]}{more}: {said}", hanging=4)


def _progress(row: StepStatus) -> str:
    return f"{row.done}/{row.total} {row.unit}" if row.done is not None else ""


def _left(row: StepStatus) -> str:
    return _duration(row.remaining) if row.remaining is not None else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _advice(rows: Sequence[StepStatus], experiment: Experiment) -> str:
    """What to do about a run that has come to a halt."""
    states = {row.state for row in rows}
    if states & {"running", "queued"} or states <= _ENDED:
        return ""
    run = Path(experiment.run_dir)
    if "stale" in states:
        return f"`nemo-sspo redo {shlex.quote(str(run))} --dry-run` lists what is out of date; without it, it is remade"
    failed = next((row.step for row in rows if row.state == "failed"), None)
    if experiment.cluster.kind == "local":
        cause = f"{failed} failed; once the cause is gone" if failed else "nobody works on it"
        return f"{cause}{',' if failed else ';'} `nemo-sspo run {shlex.quote(str(run))}` runs what is missing"
    cause = f"{failed} failed (its logs: {run}/logs/{failed}.*.log); once the cause is gone, " if failed else ""
    return f"{cause}`nemo-sspo resume {shlex.quote(str(run))}` submits what is missing"
