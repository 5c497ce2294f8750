"""``nemo-sspo lab game``: self-play, equilibria and gates in games whose truth is exact."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.errors import UserError

_RESULTS = "game.json"


def register(studies: "argparse._SubParsersAction[Any]") -> None:
    """Add the study."""
    text = "test theorems, gates and noise of the oracle in games of finitely many responses (seconds)"
    sub = studies.add_parser("game", help=text, description=f"{text}.")
    sub.add_argument("--seeds", type=int, default=32, help="drawn games of every kind (%(default)s)")
    sub.add_argument("--json", action="store_true", help="print everything as JSON")
    sub.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder in which to write {_RESULTS}")
    sub.set_defaults(command=game, overrides=[])


def game(options: argparse.Namespace) -> int:
    """Run the study, print it, and keep it."""
    from nemo_sspo.artifacts.software import software_versions
    from nemo_sspo.lab.game.study import study
    from nemo_sspo.launch.run_directory import write_atomically

    if options.seeds < 2:
        raise UserError(f"--seeds {options.seeds}: give 2 or more, for an interval over them")
    if options.output is not None and not options.output.is_dir():
        raise UserError(f"--output {options.output}: no such folder")
    found = study(options.seeds)
    command = f"nemo-sspo lab game --seeds {options.seeds}"
    data = {"command": command, "versions": software_versions()} | found.as_data()
    if options.output is not None:
        write_atomically(options.output / _RESULTS, json.dumps(data, indent=1) + "\n")
    if options.json:
        print(json.dumps(data, indent=1))
        return 0
    console = Console()
    for finding in found.findings:
        say(
            console,
            f"{'held' if finding.held else 'FAILED'}  {finding.name}: {finding.claim} ({finding.source})",
            hanging=8,
        )
        print_wide(table_of(("", ""), [(name, f"{number:.4g}") for name, number in finding.measured.items()]), console)
    return 0
