"""Progress of a running stage, as a small file that the runner and `status` read."""

import json
import os
import time
from pathlib import Path
from typing import Any


class Progress:
    """Writes ``{"done", "total", "unit", "note", "updated", "first", "started"}``, atomically, at most twice a second.

    ``first`` is what was done at the first report, at the time ``started``: one reading is enough for a rate.
    """

    def __init__(self, path: Path | None, *, min_interval: float = 0.5) -> None:
        self._path = path
        self._min_interval = min_interval
        self._last = 0.0
        self._begin: dict[str, float] = {}

    def update(self, done: int, total: int, unit: str = "items", note: str = "") -> None:
        """Report `done` of `total`. The first and the last report are always written."""
        now = time.monotonic()
        if self._path is None or (self._last and done < total and now - self._last < self._min_interval):
            return
        self._last = now
        self._begin = self._begin or {"first": done, "started": time.time()}
        state = {"done": done, "total": total, "unit": unit, "note": note, "updated": time.time(), **self._begin}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self._path)


def read_progress(path: Path) -> dict[str, Any] | None:
    """What a step last reported; None before its first report."""
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) else None
