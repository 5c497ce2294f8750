"""``nemo-sspo lab game``: self-play, equilibria and gates in games whose truth is exact."""

import argparse
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo import __version__
from nemo_sspo.commands.lab.show import show_findings
from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    from nemo_sspo.lab.game.study import Study

_RESULTS = "game.json"


def register(studies: "argparse._SubParsersAction[Any]") -> None:
    """Add the study."""
    text = "test theorems, gates and an overconfident oracle in games of finitely many responses (half a minute)"
    sub = studies.add_parser("game", help=text, description=f"{text}.")
    sub.add_argument("--seeds", type=int, default=32, help="drawn games of every kind (%(default)s)")
    sub.add_argument("--json", action="store_true", help="print everything as JSON")
    sub.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder in which to write {_RESULTS}")
    sub.set_defaults(command=game, overrides=[])


def game(options: argparse.Namespace) -> int:
    """Run the study, print it, and keep it."""
    if options.seeds < 2:
        raise UserError(f"--seeds {options.seeds}: give 2 or more, for an interval over them")
    if options.output is not None and not options.output.is_dir():
        raise UserError(f"--output {options.output}: no such folder")
    from nemo_sspo.lab.game.study import study
    from nemo_sspo.lab.results import to_json
    from nemo_sspo.launch.run_directory import write_atomically

    found = study(options.seeds)
    command = f"nemo-sspo lab game --seeds {options.seeds}"
    text = to_json({"command": command, "versions": _versions()} | found.as_data())
    if options.output is not None:
        write_atomically(options.output / _RESULTS, text)
    if options.json:
        print(text, end="")
    else:
        _show(Console(), found)
    return 0


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("numpy", "scipy")}
    return {"nemo-sspo": __version__, "python": platform.python_version()} | libraries


def _show(console: Console, found: "Study") -> None:
    show_findings(console, found.findings)
    _show_grid(console, found)


def _show_grid(console: Console, found: "Study") -> None:
    from nemo_sspo.lab.game.noise import DIALS, JUDGED_ETA
    from nemo_sspo.lab.game.sampled import ITERATIONS

    sampled = {(row.gate, row.dial): row for row in found.rows if row.how == "sampled" and row.eta == JUDGED_ETA}
    say(
        console,
        f"True duality gap after {ITERATIONS} sampled iterations at eta {JUDGED_ETA:g}, and its change by the gate; "
        "columns are the oracle's logits inside a meaning:",
    )
    rows = [
        (gate, *(f"{sampled[gate, dial].gap.mean:.3f}  {_change(sampled[gate, dial])}" for dial in DIALS))
        for gate in dict.fromkeys(gate for gate, _ in sampled)
    ]
    print_wide(table_of(("gate", *(f"{dial:g}" for dial in DIALS)), rows), console)


def _change(row: Any) -> str:
    change = row.gap_less_ungated
    return "" if row.gate == "none" else f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
