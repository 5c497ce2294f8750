"""Progress of a running stage, as a small file that the runner and `status` read."""

import json
import os
import time
from pathlib import Path


class Progress:
    """Writes ``{"done", "total", "unit", "note", "updated"}``, atomically and at most twice a second."""

    def __init__(self, path: Path | None, *, min_interval: float = 0.5) -> None:
        self._path = path
        self._min_interval = min_interval
        self._last = 0.0

    def update(self, done: int, total: int, unit: str = "items", note: str = "") -> None:
        """Report `done` of `total`. The first and the last report are always written."""
        now = time.monotonic()
        if self._path is None or (self._last and done < total and now - self._last < self._min_interval):
            return
        self._last = now
        state = {"done": done, "total": total, "unit": unit, "note": note, "updated": time.time()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, self._path)
