"""``nemo-sspo submit | status | resume | cancel``: a run as jobs of a Slurm cluster."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import EarlyStop, early_stop
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.commands.plan import plain, print_wide, show_jobs, show_notes
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.mistakes import validation_message
from nemo_sspo.errors import UserError
from nemo_sspo.launch.due import due
from nemo_sspo.launch.job_record import Submission
from nemo_sspo.launch.jobs import Job, cluster_problems, jobs, slurm_cluster
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.run_directory import bind, hold, stored_experiment
from nemo_sspo.launch.sbatch import Place
from nemo_sspo.launch.slurm import NoSlurm, final_state, live_jobs, scancel
from nemo_sspo.launch.status import StepStatus, run_status
from nemo_sspo.launch.submit import (
    missing_parts,
    place_of,
    refuse_beside_jobs,
    refuse_live_jobs,
    submit,
    submit_options,
    write_scripts,
)

_CANCEL_SECONDS = 90.0
_POLL_SECONDS = 0.5
_SETTINGS = ("account", "partition", "qos", "reservation", "time")
"""Options of submit that are settings of the cluster."""
_ENDED = {"published", "left out"}
"""States of steps with which nothing is left to do."""


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    for name, command, text in (
        ("submit", show_submit, "submit a run to Slurm, as one chain of jobs"),
        ("resume", show_submit, "submit what is missing of a run, given by its directory"),
        ("status", show_status, "print how a run on Slurm stands"),
        ("cancel", show_cancel, "cancel the Slurm jobs of a run"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text}.")
        given = "a run's directory, or the overrides it was submitted with"
        sub.add_argument("overrides", nargs="*", help=given)
        sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
        if name in ("submit", "resume"):
            sub.add_argument("--dry-run", action="store_true", help="check everything and write the scripts, no more")
            sub.add_argument("--begin", help="earliest start, as sbatch takes it (now+1hour, 2030-01-31T20:00)")
            for setting in _SETTINGS:
                sub.add_argument(f"--{setting}", help=f"cluster.{setting} of every job; a stage's own wins")
        if name == "status":
            sub.add_argument("--json", action="store_true", help="as JSON")
            sub.add_argument("--watch", type=float, metavar="SECONDS", help="print it again and again")
        sub.set_defaults(command=command, is_resume=name == "resume")


def show_submit(options: argparse.Namespace) -> int:
    """Check everything, then submit what is missing."""
    experiment = _with_options(_experiment(options), options)
    graph, place, console = jobs(experiment), place_of(experiment), Console()
    measured = _measured_seconds_per_step(experiment)
    found = list(dict.fromkeys([*problems(experiment), *cluster_problems(experiment, measured)]))
    show_notes(experiment)
    if options.dry_run:
        show_jobs(graph, console)
        for problem in found:
            print(f"error: {problem}", file=sys.stderr)
        if not found:
            _rehearse(experiment, graph, place, options.begin)
        return UserError.EXIT_CODE if found else 0
    if found:
        more = f" (and {len(found) - 1} more: --dry-run lists them)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")
    layout = RunLayout(experiment.run_dir)
    with hold(layout):
        refuse_live_jobs(place.run)
        for change in bind(experiment, layout):
            console.print(f"changed since the last start: {change}", markup=False, highlight=False)
        done = submit(experiment, begin=options.begin)
    _show_submitted(done, early_stop(layout), console)
    return 0


def _rehearse(experiment: Experiment, graph: Sequence[Job], place: Place, begin: str | None) -> None:
    """Write the scripts and print how they would be submitted; ``<name>`` stands for the id of an earlier job."""
    refuse_beside_jobs(place.run)  # jobs that wait read the environment's file when they start
    write_scripts(experiment, graph, place)
    done: list[Submission] = []
    for part in missing_parts(due(graph, place)):
        print(shlex.join(["sbatch", *submit_options(part, place, done, begin), str(place.script(part.job))]))
        done.append(Submission(part.job.name, f"<{part.job.name}>", part.shards, 0.0))


def show_status(options: argparse.Namespace) -> int:
    """Print the state of every step, once or again and again."""
    experiment = _experiment(options)
    graph, place = jobs(experiment), place_of(experiment)
    while True:
        try:
            rows = run_status(graph, place, live_jobs(place.run), final_state)
        except UserError as silence:
            if options.watch is None or isinstance(silence, NoSlurm):
                raise
            print(f"{silence} (asking again)", file=sys.stderr)  # a controller that restarts ends no watch
            time.sleep(max(1.0, options.watch))
            continue
        if options.json:
            print(json.dumps([asdict(row) for row in rows], indent=1))
        else:
            print_wide(_status_table(rows))
            if advice := _advice(rows, place.run):
                print(advice)
        if options.watch is None or all(row.state in _ENDED for row in rows):
            return 0
        time.sleep(max(1.0, options.watch))


def show_cancel(options: argparse.Namespace) -> int:
    """Cancel every job of the run and wait until nothing of it is left."""
    run = _submitted_run(options.overrides) or place_of(_experiment(options)).run
    ids = list(dict.fromkeys(job.submission for job in live_jobs(run)))
    scancel(ids)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while left := live_jobs(run):
        if time.monotonic() > deadline:
            raise UserError(f"{left[0].id}: still {left[0].state.lower()} {_CANCEL_SECONDS:g} s after it was cancelled")
        time.sleep(_POLL_SECONDS)
    print(f"cancelled {len(ids)} jobs; `nemo-sspo resume {shlex.quote(str(run))}` continues" if ids else "no jobs left")
    return 0


def _submitted_run(given: Sequence[str]) -> Path | None:
    """A run given by its directory, which has the record of its jobs; its settings need not be readable."""
    if len(given) != 1 or "=" in given[0]:
        return None
    run = Path(given[0]).absolute()
    return run if Place(run, Path.cwd()).submissions.exists() else None


def _experiment(options: argparse.Namespace) -> Experiment:
    """The experiment of a run directory, or of overrides."""
    given: list[str] = options.overrides
    if not given:
        raise UserError("give the directory of a run, as in runs/<name>, or the overrides of one")
    if not (options.is_resume or (len(given) == 1 and "=" not in given[0])):
        return load_experiment(given, options.config_dir)
    if len(given) != 1 or "=" in given[0]:
        raise UserError("resume takes a run's directory, as in runs/<name>; settings are changed with submit")
    root = Path(given[0])
    experiment = stored_experiment(RunLayout(root))
    if experiment is None:
        raise UserError(f"{root}: experiment.json is of another version; give the overrides it was submitted with")
    if experiment.cluster.kind == "local":
        raise UserError(
            f"{root}: a run of this machine, not of Slurm: `nemo-sspo report {shlex.quote(str(root))}` shows how it "
            "stands, and `nemo-sspo run` with its overrides continues it"
        )
    if experiment.run_dir.resolve() != root.resolve():
        raise UserError(
            f"{root}: its experiment.json says {experiment.run_dir}; run this from the directory that it was submitted "
            "from, and leave the run where it is"
        )
    return experiment


def _with_options(experiment: Experiment, options: argparse.Namespace) -> Experiment:
    """The experiment with the command line's settings of the cluster; they are stored with the run."""
    changes = {name: value for name in _SETTINGS if (value := getattr(options, name)) is not None}
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
    return open_artifact(published[-1]).manifest.timings.get("seconds_per_step") if published else None


def _show_submitted(done: Sequence[Submission], stop: EarlyStop | None, console: Console) -> None:
    for item in done:
        shards = f" shards {shard_ranges(item.shards)}" if len(item.shards) > 1 else ""
        console.print(f"{item.id:>8}  {item.job}{shards}", markup=False, highlight=False)
    nothing = f"nothing is missing: the run has {stop}" if stop else "every step is published"
    console.print(f"{len(done)} jobs submitted" if done else nothing, markup=False, highlight=False)


def _status_table(rows: Sequence[StepStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "state", "job", "progress", "rate", "left", "restarts", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        progress = f"{row.done}/{row.total} {row.unit}" if row.done is not None else ""
        rate = f"{row.per_second:.3g}/s" if row.per_second is not None else ""
        left = _duration(row.remaining) if row.remaining is not None else ""
        cells = (row.step, row.state, row.job, progress, rate, left, str(row.restarts or ""), row.detail)
        table.add_row(*map(plain, cells))
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _advice(rows: Sequence[StepStatus], run: Path) -> str:
    """What to do about a run that has come to a halt."""
    states = {row.state for row in rows}
    if states & {"running", "queued"} or states <= _ENDED:
        return ""
    failed = next((row.step for row in rows if row.state == "failed"), None)
    cause = f"{failed} failed (its logs: {run}/logs/{failed}.*.log); once the cause is gone, " if failed else ""
    return f"{cause}`nemo-sspo resume {shlex.quote(str(run))}` submits what is missing"
