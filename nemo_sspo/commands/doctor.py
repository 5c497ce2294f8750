"""``doctor``: what this machine and its environments are fit for, looked at, and with ``--run`` tried."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.machine import gpus_to_use, local_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nemo_sspo.config.experiment import Experiment
    from nemo_sspo.doctor.check import Check

RECORD = "doctor.json"
_ENVIRONMENTS = "environments.json"


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    text = "look at this machine and both environments; with --run, try them by a small loop (up to ten minutes)"
    sub = commands.add_parser(
        "doctor",
        help=text,
        description=f"{text}. Exits with 0 when no check fails, 1 when one does, 2 when one could not be run.",
    )
    given = (
        "settings of the small loop (precision=fp8 parallel=tp2), a site (cluster=my_site), or those or the directory "
    )
    given += "of a run of yours, whose needs are then looked at"
    sub.add_argument("overrides", nargs="*", help=given)
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own")
    sub.add_argument("--run", action="store_true", help="run the small loop and check what its stages publish")
    sub.add_argument(
        "--directory",
        type=Path,
        help="where the loop lies (runs/doctor/<time>); one that is there is continued, as in the other image",
    )
    sub.add_argument(
        "--minutes", type=float, default=30, help="what is under way then hangs: it is ended, and fails (30)"
    )
    sub.add_argument("--json", action="store_true", help="print the record in place of the table")
    sub.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Check, show a table, write the record."""
    from nemo_sspo.doctor.check import exit_code
    from nemo_sspo.doctor.environments import look_at, usable, with_earlier
    from nemo_sspo.doctor.host.look import host_checks
    from nemo_sspo.doctor.machine import look_at_machine
    from nemo_sspo.doctor.record import as_json, tally
    from nemo_sspo.doctor.setup_checks import setup_checks

    if options.directory and not options.run:
        raise UserError("--directory is where --run works: give both")
    directory = options.directory or Path("runs/doctor") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    experiment = _tried(options, directory) if options.run else _looked_at(options, directory)
    console = Console(stderr=options.json)
    machine, checks = look_at_machine(Path(experiment.runs_dir)), host_checks(experiment)
    show = (lambda _: None) if options.json else (lambda some: _show(some, console))
    show(checks)  # at once: an environment may take a minute to import what it has
    found = look_at(experiment)
    environments = with_earlier(found, directory / _ENVIRONMENTS)
    more = setup_checks(machine, environments, experiment.precision)
    show(more)
    checks += more
    trial = None
    if options.run:
        if not (here := usable(found)):
            raise UserError(found["train"]["problem"])
        more, trial = _try(experiment, here, console, options.minutes)
        show(more)
        checks += more
    record = as_json(checks, machine, environments, trial)
    if options.json:
        print(record, end="")
    else:
        console.print(tally(checks), highlight=False)
    if options.run:
        (directory / _ENVIRONMENTS).write_text(json.dumps(environments))
        file = directory / RECORD
        file.write_text(record)
        console.print(f"{file}: the record; it names no host, path or secret", markup=False, highlight=False)
    return exit_code(checks)


def _show(checks: "Sequence[Check]", console: Console) -> None:
    from nemo_sspo.commands.terminal import print_wide
    from nemo_sspo.doctor.record import check_table

    print_wide(check_table(checks), console)


def _looked_at(options: argparse.Namespace, directory: Path) -> "Experiment":
    """The run that is named, or the small loop on the cluster that is: nothing of it is started."""
    given = options.overrides
    if any(word.startswith("experiment=") or "=" not in word for word in given):
        return given_experiment(given, options.config_dir)
    return _small_loop(options, directory)


def _tried(options: argparse.Namespace, directory: Path) -> "Experiment":
    """The small loop, which runs here."""
    experiment = _small_loop(options, directory)
    local_cluster(experiment)
    return experiment


def _small_loop(options: argparse.Namespace, directory: Path) -> "Experiment":
    """The small loop on what this machine shows."""
    from nemo_sspo.doctor.trial import trial_experiment

    gpus = len(gpus_to_use(local_cluster(load_experiment(["experiment=quickstart-gpu"]))))
    return trial_experiment(options.overrides, gpus, directory, options.config_dir)


def _try(
    experiment: "Experiment", here: set[str], console: Console, minutes: float
) -> tuple[list["Check"], dict[str, Any]]:
    """Run the small loop in the environments that are here; its checks, and what it was and took."""
    from nemo_sspo.commands.driving import run_steps
    from nemo_sspo.doctor.environments import NAMES
    from nemo_sspo.doctor.trial import run_trial, step_facts
    from nemo_sspo.doctor.trial_checks import trial_checks
    from nemo_sspo.launch.preflight import problems

    absent = tuple(f"cluster.{name}.python=" for name in NAMES if name not in here)
    if found := [problem for problem in problems(experiment) if not problem.startswith(absent)]:
        raise UserError(found[0])
    trial = run_trial(experiment, here, lambda run, steps: run_steps(run, console, steps), minutes * 60)
    for failure in trial.failed:
        print(failure, file=sys.stderr)
    facts = {
        "precision": experiment.precision.kind,
        "parallel": experiment.parallel.model_dump(),
        "launcher": experiment.cluster.launcher,
        "seconds": trial.seconds,
        "steps": step_facts(trial),
    }
    return trial_checks(trial), facts
