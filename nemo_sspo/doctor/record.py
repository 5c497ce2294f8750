"""What is sent back: facts, checks and timings as one JSON file, and the table that a terminal shows of them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from nemo_sspo import __version__
from nemo_sspo.doctor.check import Check, exit_code

FORMAT = 1
_STYLE = {"passed": "green", "failed": "bold red", "not run": "yellow"}
_PATH = re.compile(r"(?<![\w.])~?/[\w.@+-]+(?:/[\w.@+-]+)*")
_OUTCOME = {0: "passed", 1: "failed", 2: "incomplete"}


def as_json(
    checks: Sequence[Check],
    machine: Mapping[str, Any],
    environments: Mapping[str, Any],
    trial: Mapping[str, Any] | None = None,
) -> str:
    """The record. `trial` is what was run and how long it took; None where nothing was."""
    outcome = _OUTCOME[exit_code(checks)]
    record = {
        "format": FORMAT,
        "nemo_sspo": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": outcome,
        "machine": machine,
        "environments": environments,
        "checks": [asdict(check) for check in checks],
        "trial": trial,
    }
    return json.dumps(_private(record), indent=1) + "\n"


def _private(value: Any) -> Any:
    """The same without absolute paths and this machine's name: the file is sent to others."""
    if isinstance(value, Mapping):
        return {key: _private(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_private(inner) for inner in value]
    return _PATH.sub("<path>", value.replace(os.uname().nodename, "<host>")) if isinstance(value, str) else value


def check_table(checks: Sequence[Check]) -> Table:
    """One row per check."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "measured", "bound", "verdict", ""):
        table.add_column(heading, overflow="fold")
    for check in checks:
        stand_in = f"stand-in: {check.stand_in}" if check.stand_in else ""
        verdict = Text(check.verdict, style=_STYLE[check.verdict])
        table.add_row(Text(check.name), _figure(check.measured, check), _figure(check.bound, check), verdict, stand_in)
    return table


def _figure(value: float | str | None, check: Check) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, str):
        return Text(value)
    return Text(f"{value:.3g} {check.unit}".rstrip())
