"""``nemo-sspo``: run a self-play loop, look at its settings, its plan and its results. Imports no torch."""

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from nemo_sspo import __version__
from nemo_sspo.artifacts.durable import FULL_DISK_ERRORS
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands import completion as completion_commands
from nemo_sspo.commands import estimate as estimate_commands
from nemo_sspo.commands import report as report_commands
from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.mistakes import closest, shown
from nemo_sspo.errors import UserError, one_line

ROOMS = {
    "report": ("report", "compare"),
    "slurm": ("submit", "resume", "status", "cancel"),
    "redo": ("redo",),
    "clean": ("clean",),
    "data": ("import-rollouts", "export-pairs"),
    "benchmark": ("benchmark",),
    "reproduce": ("reproduce",),
    "lab": ("lab",),
    "doctor": ("doctor",),
    "profile": ("profile",),
}
"""Modules of `commands/` and the commands that each registers. Only the one that is asked for is imported."""
_HERE = ("run", "config", "plan", "summary")

_INTERRUPTED = 130
_OF_THE_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a step failed, 2 the input is wrong."""
    parser = _parser(rooms_of(sys.argv[1:] if arguments is None else arguments))
    options, rest = parser.parse_known_args(arguments)
    if unknown := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"no such option: {unknown[0]}{closest(unknown[0].partition('=')[0], options.known_options)}")
    if rest:
        options.overrides += rest  # overrides that stand behind an option
    try:
        return options.command(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    except BrokenPipeError:  # `nemo-sspo plan | head` closes the pipe early: no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if (reason := _reason(error)) is None:
            raise
        print(f"error: {one_line(reason)}", file=sys.stderr)
        return UserError.EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted: every step has been stopped; the same command continues from here", file=sys.stderr)
        return _INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """Check everything, then run what is missing and show what came of it."""
    from nemo_sspo.commands.driving import drive, refuse
    from nemo_sspo.commands.plan import show_notes
    from nemo_sspo.launch.machine import local_cluster
    from nemo_sspo.launch.plan import plan
    from nemo_sspo.launch.preflight import problems

    experiment = given_experiment(options.overrides, options.config_dir)
    local_cluster(experiment)
    found = problems(experiment)
    show_notes(experiment)
    if options.dry_run:
        return _dry_run(experiment, found)
    refuse(found)
    signal.signal(signal.SIGTERM, _interrupt)
    console, layout = Console(), RunLayout(experiment.run_dir)
    if code := drive(experiment, console, plan(experiment)):
        return code
    _show_summary(console, layout)
    report_commands.draw_at_the_end(console, layout)
    return 0


def show_plan(options: argparse.Namespace) -> int:
    """Print the steps of a run, what each waits for, and what they take in all; or an estimate, which needs less."""
    experiment = given_experiment(options.overrides, options.config_dir)
    if options.estimate:
        return estimate_commands.show_estimate(experiment, options)
    estimate_commands.refuse_without_estimate(options)
    from nemo_sspo.commands.plan import show_graph, show_jobs, show_steps, show_totals
    from nemo_sspo.launch.plan import as_data, plan
    from nemo_sspo.launch.slurm.jobs import as_data as jobs_as_data
    from nemo_sspo.launch.slurm.jobs import jobs
    from nemo_sspo.launch.stale import freshness_of
    from nemo_sspo.launch.totals import Totals

    steps, on_slurm = plan(experiment), experiment.cluster.kind == "slurm"
    if options.graph:
        show_graph(steps)
    elif options.json:
        found = {"jobs": jobs_as_data(jobs(experiment))} if on_slurm else {"steps": as_data(steps)}
        print(json.dumps(found | {"totals": asdict(Totals.of(experiment))}, indent=1))
        return 0
    elif on_slurm:
        show_jobs(jobs(experiment), freshness_of(experiment), Console())
    else:
        show_steps(steps)
    show_totals(experiment)
    return 0


def show_settings(options: argparse.Namespace) -> int:
    """Print every setting, or those that are named."""
    from nemo_sspo.commands.config import show_config

    return show_config(options)


def show_summary(options: argparse.Namespace) -> int:
    """Print what came of a run, given as a directory or by its overrides."""
    _show_summary(Console(), report_commands.run_layout(options.overrides, options.config_dir))
    return 0


def _show_summary(console: Console, layout: RunLayout) -> None:
    from nemo_sspo.report.summary import summary_tables, write_summary

    facts = report_commands.gathered(layout, prompts=0)
    path = write_summary(layout, facts)
    console.print(*summary_tables(facts, console.width), sep="\n", highlight=False)
    report_commands.show_findings(console, facts.findings)
    console.print(f"{path}", markup=False, highlight=False, soft_wrap=True)


def _dry_run(experiment: Experiment, found: Sequence[str]) -> int:
    from nemo_sspo.commands.plan import show_steps, show_totals
    from nemo_sspo.launch.plan import plan

    show_steps(plan(experiment))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if not found:
        show_totals(experiment)
        print(f"every input is in order; {experiment.run_dir} would hold the run")
    return UserError.EXIT_CODE if found else 0


def _reason(error: OSError) -> str | None:
    """An error that the user can mend, in one line; None for any other."""
    if error.errno in FULL_DISK_ERRORS:
        return "the disk is full, or your quota on it: free some space and run again"
    if error.errno in _OF_THE_PATH and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}; give another path, or ask its owner"
    return None


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """Mistakes are one line here too."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.dest == argparse.SUPPRESS and action.choices is not None and value not in action.choices:
            names = list(action.choices)
            self.error(f"{shown(value)}: no such {action.metavar}{closest(value, names)}; one of {', '.join(names)}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Print the mistake and where help is; exit 2."""
        self.exit(UserError.EXIT_CODE, f"error: {one_line(message)} ({self.prog} --help)\n")


def rooms_of(arguments: Sequence[str]) -> Sequence[str]:
    """Modules that register the command that is asked for: all where none is, or completion's, which tells them all."""
    asked = arguments[0] if arguments else ""
    return () if asked in _HERE else [room for room, names in ROOMS.items() if asked in names] or [*ROOMS]


def _parser(rooms: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="nemo-sspo", description="S-SPPO self-play on NeMo and Megatron-core")
    parser.add_argument("--version", action="version", version=f"nemo-sspo {__version__}")
    parser.set_defaults(run=run)
    commands = parser.add_subparsers(required=True, metavar="command")
    settings = "settings as key=value, for example experiment=quickstart gate=power train.learning_rate=1e-6"
    named = f"{settings}; names (train., gate, momentum) print what they name alone, a group's choices among it"
    or_run = f"{settings}; or the directory of a run that was begun with them, and what changes"
    for name, command, text, given in (
        ("run", run, "run the loop, or what is missing of it", or_run),
        ("config", show_settings, "print every setting, its value and its meaning", named),
        ("plan", show_plan, "print the steps of a run", or_run),
        ("summary", show_summary, "print what came of a run", or_run),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text}.")
        sub.add_argument("overrides", nargs="*", help=given)
        sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
        if name == "run":
            sub.add_argument("--dry-run", action="store_true", help="print the plan and check every input, no more")
        if name in ("config", "plan"):
            sub.add_argument("--json", action="store_true", help="as JSON")
        if name == "plan":
            sub.add_argument("--graph", action="store_true", help="as a tree of what waits for what")
            estimate_commands.add_options(sub)
        sub.set_defaults(command=command)
    for room in rooms:
        import_module(f"nemo_sspo.commands.{room}").register(commands)
    completion_commands.register(commands, parser)
    for each in completion_commands.commands_of(parser).values():
        each.set_defaults(known_options=completion_commands.options_of(each))
    return parser


if __name__ == "__main__":
    sys.exit(main())
