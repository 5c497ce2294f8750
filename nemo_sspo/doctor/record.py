"""What is sent back: facts, checks and timings as one JSON file, and the lines that a terminal shows of them."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from nemo_sspo import __version__
from nemo_sspo.doctor.check import Check, Verdict, exit_code
from nemo_sspo.words import counted

FORMAT = 1
_STYLE: dict[Verdict, str] = {"failed": "bold red", "not run": "yellow", "warning": "yellow", "passed": "green"}
"""The worst first."""
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
    """One row per check: its verdict, what was found, and below that what to do."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=max(map(len, _STYLE)))
    table.add_column()
    for check in checks:
        bound = f" ({_bound(check)})" if check.bound is not None else ""
        stand_in = f" [stand-in: {check.stand_in}]" if check.stand_in else ""
        found = "" if check.measured is None else f": {_figure(check.measured, check.unit)}{bound}"
        text = Text.assemble((check.name, "bold"), f"{found}{stand_in}")
        if check.note and check.verdict != "passed":
            text.append(f"\n{check.note}", _STYLE[check.verdict])
        table.add_row(Text(check.verdict, _STYLE[check.verdict]), text)
    return table


def tally(checks: Sequence[Check]) -> str:
    """How many checks have each verdict, the worst first."""
    counts = Counter(check.verdict for check in checks)
    words = {verdict: f"{counts[verdict]} {verdict}" for verdict in _STYLE if counts[verdict]}
    if "warning" in words:
        words["warning"] = counted(counts["warning"], "warning")
    return ", ".join(words.values())


def _bound(check: Check) -> str:
    if isinstance(check.bound, str):
        return check.bound
    return f"at most {_figure(check.bound, check.unit)}"


def _figure(value: float | str | None, unit: str) -> str:
    return f"{value:.3g} {unit}".rstrip() if isinstance(value, int | float) else str(value)
