"""``nemo-sspo clean``: free the disk of a run from what nothing that is left to do will read."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.stored_run import stored_run
from nemo_sspo.commands.terminal import print_wide, table_of
from nemo_sspo.launch.clean import MEANINGS, ONLY_WHEN_ASKED, Disposable, disposable, freed_bytes, remove
from nemo_sspo.launch.run_directory import hold
from nemo_sspo.launch.slurm.submit import refuse_beside_jobs
from nemo_sspo.launch.stale import refuse_stale

_GIB = 2**30


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    text = "free the disk of a run from what nothing that is left to do will read"
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in MEANINGS.items())
    sub = commands.add_parser("clean", help=text, description=f"{text}. {kinds}.")
    sub.add_argument("run", type=Path, help="directory of the run")
    usual = [kind for kind in MEANINGS if kind not in ONLY_WHEN_ASKED]
    sub.add_argument("--keep", nargs="+", choices=usual, default=[], help="what stays all the same")
    sub.add_argument("--also", nargs="+", choices=ONLY_WHEN_ASKED, default=[], help="what stays unless it is named")
    sub.add_argument("--dry-run", action="store_true", help="list what would go and the disk that it frees, no more")
    sub.set_defaults(command=clean, overrides=[])


def clean(options: argparse.Namespace) -> int:
    """List what goes, and remove it where nobody works on the run."""
    experiment, console = stored_run(options.run), Console()
    kinds = {kind for kind in MEANINGS if kind not in options.keep and kind not in ONLY_WHEN_ASKED} | {*options.also}
    with hold(RunLayout(options.run)):
        refuse_beside_jobs(options.run)
        refuse_stale(experiment)
        found = disposable(experiment, kinds)
        freed = freed_bytes(found) / _GIB
        if found:
            print_wide(_table(found, options.run), console)
        if not options.dry_run:
            for item in found:
                remove(item)
    print(f"{freed:.2f} GiB {'would be' if options.dry_run else 'are'} freed" if found else "nothing to remove")
    return 0


def _table(found: Sequence[Disposable], run: Path) -> Table:
    rows = [
        (item.kind, item.path.relative_to(run), len(item.paths), f"{freed_bytes([item]) / _GIB:.2f}") for item in found
    ]
    return table_of(("goes", "of", "files", "GiB"), rows)
