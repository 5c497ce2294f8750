"""``nemo-sspo submit | status | resume | cancel``: a run as jobs of a Slurm cluster."""

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import EarlyStop, early_stop
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.commands.plan import show_jobs, show_notes, show_totals
from nemo_sspo.commands.status import show_status
from nemo_sspo.commands.stored_run import directory, given_experiment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.mistakes import validation_message
from nemo_sspo.errors import UserError
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.run_directory import bind, hold
from nemo_sspo.launch.slurm.commands import live_jobs, max_array_size, scancel
from nemo_sspo.launch.slurm.job_record import Submission
from nemo_sspo.launch.slurm.jobs import Job, array_problems, cluster_problems, jobs, slurm_cluster
from nemo_sspo.launch.slurm.sbatch import RunPaths
from nemo_sspo.launch.slurm.submit import (
    Iterations,
    jobs_to_slurm,
    parts_to_submit,
    refuse_beside_jobs,
    refuse_live_jobs,
    run_paths,
    submit,
    submit_options,
    write_scripts,
)
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.words import counted

_CANCEL_SECONDS = 90.0
_POLL_SECONDS = 0.5
_SETTINGS = ("account", "partition", "qos", "reservation", "time")
"""Options of submit that are settings of the cluster."""


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    for name, command, text in (
        ("submit", show_submit, "submit a run to Slurm, as one chain of jobs"),
        ("resume", show_submit, "submit what is missing of a run, given by its directory"),
        ("status", show_status, "print how a run stands, here or on Slurm"),
        ("cancel", show_cancel, "cancel the Slurm jobs of a run"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text}.")
        given = "a run's directory, or the overrides it was submitted with"
        sub.add_argument("overrides", nargs="*", help=given)
        sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
        if name in ("submit", "resume"):
            sub.add_argument("--dry-run", action="store_true", help="check everything and write the scripts, no more")
            sub.add_argument("--begin", help="earliest start, as sbatch takes it (now+1hour, 2030-01-31T20:00)")
            part = "N or FIRST-LAST: only these iterations, where a limit of submitted jobs holds fewer than all"
            sub.add_argument("--iterations", help=part)
            for setting in _SETTINGS:
                sub.add_argument(f"--{setting}", help=f"cluster.{setting} of every job; a stage's own wins")
        if name == "status":
            sub.add_argument("--json", action="store_true", help="as JSON")
            sub.add_argument("--watch", type=float, metavar="SECONDS", help="print it again and again")
        sub.set_defaults(command=command, is_resume=name == "resume")


def show_submit(options: argparse.Namespace) -> int:
    """Check everything, then submit what is missing."""
    experiment = _with_options(_of_slurm(options), options)
    graph, place, console = jobs(experiment), run_paths(experiment), Console()
    iterations = _iterations(options.iterations, experiment)
    measured = _measured_seconds_per_step(experiment)
    found = [*problems(experiment), *cluster_problems(experiment, measured)]
    if (most := max_array_size()) is not None:
        found += array_problems(graph, most)
    found = list(dict.fromkeys(found))
    show_notes(experiment)
    if options.dry_run:
        show_jobs(graph, freshness_of(experiment), console)
        for problem in found:
            print(f"error: {problem}", file=sys.stderr)
        if not found:
            show_totals(experiment)
            _rehearse(experiment, graph, place, options.begin, iterations)
        return UserError.EXIT_CODE if found else 0
    if found:
        more = f" (and {len(found) - 1} more: --dry-run lists them)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")
    layout = RunLayout(experiment.run_dir)
    with hold(layout):
        refuse_live_jobs(place.run)
        for change in bind(experiment, layout):
            console.print(f"changed since the last start: {change}", markup=False, highlight=False)
        done = submit(experiment, begin=options.begin, iterations=iterations)
    _show_submitted(done, early_stop(layout), console)
    if iterations is not None and iterations.last < experiment.iterations:
        again = f"nemo-sspo resume {shlex.quote(str(experiment.run_dir))}"
        console.print(f"when they are over, `{again}` submits the rest", markup=False, highlight=False)
    return 0


def _iterations(text: str | None, experiment: Experiment) -> Iterations | None:
    if text is None:
        return None
    if found := re.fullmatch(r"(\d+)(?:-(\d+))?", text, re.ASCII):
        part = Iterations(int(found[1]), int(found[2] or found[1]))
        if 1 <= part.first <= part.last <= experiment.iterations:
            return part
    raise UserError(f"--iterations {text}: expected N or FIRST-LAST within 1-{experiment.iterations}")


def _rehearse(
    experiment: Experiment, graph: Sequence[Job], place: RunPaths, begin: str | None, iterations: Iterations | None
) -> None:
    """Write the scripts and print how they would be submitted; ``<name>`` stands for the id of an earlier job."""
    refuse_beside_jobs(place.run)  # jobs that wait read the environment's file when they start
    parts = parts_to_submit(experiment, graph, iterations)
    write_scripts(experiment, graph, place)
    done: list[Submission] = []
    for part in parts:
        print(shlex.join(["sbatch", *submit_options(part, place, done, begin), str(place.script(part.job))]))
        done.append(Submission(part.job.name, f"<{part.job.name}>", part.shards, 0.0))
    print(f"# {counted(jobs_to_slurm(parts), 'job')}, as a limit of submitted jobs counts them: every task of an array")


def show_cancel(options: argparse.Namespace) -> int:
    """Cancel every job of the run and wait until nothing of it is left."""
    run = _submitted_run(options.overrides) or run_paths(_of_slurm(options)).run
    ids = list(dict.fromkeys(job.submission for job in live_jobs(run)))
    scancel(ids)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while left := live_jobs(run):
        if time.monotonic() > deadline:
            raise UserError(f"{left[0].id}: still {left[0].state.lower()} {_CANCEL_SECONDS:g} s after it was cancelled")
        time.sleep(_POLL_SECONDS)
    print(
        f"cancelled {counted(len(ids), 'job')}; `nemo-sspo resume {shlex.quote(str(run))}` continues"
        if ids
        else "no jobs left"
    )
    return 0


def _submitted_run(given: Sequence[str]) -> Path | None:
    """A run given by its directory, which has the record of its jobs; its settings need not be readable."""
    if len(given) != 1 or "=" in given[0]:
        return None
    run = Path(given[0]).absolute()
    return run if RunPaths(run, Path.cwd()).submissions.exists() else None


def _of_slurm(options: argparse.Namespace) -> Experiment:
    """The experiment of a run's directory, which must be one for Slurm, or of overrides."""
    root = directory(options.overrides)
    if options.is_resume and options.overrides and (root is None or len(options.overrides) > 1):
        raise UserError("resume takes a run's directory, as in runs/<name>; settings are changed with submit")
    experiment = given_experiment(options.overrides, options.config_dir)
    if root is not None and experiment.cluster.kind == "local":
        again = f"nemo-sspo run {shlex.quote(str(root))}"
        raise UserError(f"{root}: a run of this machine, not of Slurm: `{again}` continues it")
    return experiment


def _with_options(experiment: Experiment, options: argparse.Namespace) -> Experiment:
    """The experiment with the command line's settings of the cluster; they are stored with the run."""
    changes = {name: value for name in _SETTINGS if (value := getattr(options, name, None)) is not None}
    if not changes:
        return experiment
    cluster = slurm_cluster(experiment).model_dump() | changes
    settings = experiment.model_dump() | {"cluster": cluster}
    try:
        return Experiment.model_validate(settings)
    except ValidationError as error:
        raise UserError(validation_message(error, settings)) from None


def _measured_seconds_per_step(experiment: Experiment) -> float | None:
    """Of the last training step that this run has published."""
    layout = RunLayout(experiment.run_dir)
    trained = [layout.artifact("train", iteration) for iteration in range(1, experiment.iterations + 1)]
    published = [path for path in trained if is_published(path)]
    return open_artifact(published[-1], whole=False).manifest.timings.get("seconds_per_step") if published else None


def _show_submitted(done: Sequence[Submission], stop: EarlyStop | None, console: Console) -> None:
    for item in done:
        shards = f" shards {shard_ranges(item.shards)}" if len(item.shards) > 1 else ""
        console.print(f"{item.id:>8}  {item.job}{shards}", markup=False, highlight=False)
    nothing = f"nothing is missing: the run has {stop}" if stop else "every step is published"
    console.print(f"{counted(len(done), 'job')} submitted" if done else nothing, markup=False, highlight=False)
