"""``nemo-sspo redo``: list what of a run is out of date or shall be made anew, set it aside, and make it again."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.stored_run import stored_run
from nemo_sspo.commands.terminal import print_wide, table_of
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import change_experiment
from nemo_sspo.errors import UserError

_GIB = 2**30


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser, whose default `run` goes on with a run here."""
    text = "make steps of a run anew, and all that was made from them"
    sub = commands.add_parser("redo", help=text, description=f"{text}. Without --from: what is out of date.")
    sub.add_argument("overrides", nargs="*", metavar="run", help="a run's directory, and settings that change with it")
    sub.add_argument("--from", dest="steps", action="append", default=[], metavar="STEP", help="as in iter_1.train")
    sub.add_argument("--dry-run", action="store_true", help="list what would be made anew, no more")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.set_defaults(command=redo)


def redo(options: argparse.Namespace) -> int:
    """Check everything, list and set aside what is invalid, then go on with the run."""
    from nemo_sspo.commands.slurm import show_submit
    from nemo_sspo.launch.clean import refuse_removed
    from nemo_sspo.launch.preflight import CHECKS, check_stored_experiment, problems
    from nemo_sspo.launch.redo import invalidated, set_aside
    from nemo_sspo.launch.run_directory import bind, hold
    from nemo_sspo.launch.slurm.submit import refuse_beside_jobs

    experiment, console = _experiment(options), Console()
    layout, is_local = RunLayout(experiment.run_dir), experiment.cluster.kind == "local"
    found = invalidated(experiment, options.steps)
    _show(found, console)
    refuse_removed(experiment, {item.name for item in found})
    if wrong := problems(experiment, [check for check in CHECKS if check is not check_stored_experiment]):
        raise UserError(wrong[0])
    if options.dry_run:
        return 0
    with hold(layout):
        refuse_beside_jobs(layout.root)
        found = invalidated(experiment, options.steps)
        if found:
            aside = set_aside(layout, found)
            _say(console, f"set aside in {aside} ({_size(found)}); delete it once nobody wants it back")
        for change in bind(experiment, layout):
            _say(console, f"changed since the last start: {change}")
    go_on = {"overrides": [str(layout.root)], "config_dir": None, "dry_run": False, "is_resume": True}
    return (options.run if is_local else show_submit)(argparse.Namespace(**go_on, begin=None, iterations=None))


def _experiment(options: argparse.Namespace) -> Experiment:
    given: Sequence[str] = options.overrides
    if not given or "=" in given[0]:
        raise UserError("redo takes a run's directory first, as in runs/<name>, then settings that change with it")
    stored = stored_run(Path(given[0]))
    experiment = change_experiment(stored, given[1:], options.config_dir)
    if experiment.run_dir != stored.run_dir:
        raise UserError("redo changes no name and no runs_dir: that would be another run")
    return experiment


def _show(found: "Sequence[Any]", console: Console) -> None:
    if not found:
        _say(console, "nothing is out of date, and no step is named with --from")
        return
    rows = [(item.name, item.reason) for item in reversed(found)]
    print_wide(table_of(("to be made anew", "because"), rows), console)
    _say(console, f"{len(found)} in all, {_size(found)}")


def _size(found: "Sequence[Any]") -> str:
    return f"{sum(item.bytes for item in found) / _GIB:.2f} GiB"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()
