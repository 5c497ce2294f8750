"""The ledgers that are committed, below tests/rehearsal/ledgers.

PRESET.rank_N.json                   `make rehearse` writes it
whole_batches/PRESET.rank_N.json     `make rehearse-all`
tiny.jsonl                           `make rehearse-all`, a line for each tiny case
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.rehearsal.ledger import Ledger

LEDGERS = Path(__file__).parent / "ledgers"
WHOLE_BATCHES = LEDGERS / "whole_batches"
TINY = LEDGERS / "tiny.jsonl"


def committed(key: str, folder: Path = LEDGERS) -> Ledger | None:
    path = folder / f"{key}.json"
    return Ledger.from_json(json.loads(path.read_text())) if path.exists() else None


def commit(ledger: Ledger, folder: Path = LEDGERS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{ledger.key}.json").write_text(json.dumps(ledger.to_json(), indent=1) + "\n")


class Collected:
    """Ledgers in a file of JSON lines. Each is there as soon as it is added: a process may be stopped at any time."""

    def __init__(self, path: Path = TINY) -> None:
        self._path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if whole != lines:  # it was stopped while it wrote the last one
            path.write_text("".join(whole))
        ledgers = [Ledger.from_json(json.loads(line)) for line in whole]
        self._ledgers = {ledger.key: ledger for ledger in ledgers}

    def __len__(self) -> int:
        return len(self._ledgers)

    def __iter__(self) -> Iterator[Ledger]:
        return iter(self._ledgers.values())

    def get(self, key: str) -> Ledger | None:
        return self._ledgers.get(key)

    def add(self, ledger: Ledger) -> None:
        """In place of the one of its key, if there is one."""
        is_known = ledger.key in self._ledgers
        self._ledgers[ledger.key] = ledger
        if is_known:
            draft = self._path.with_suffix(".partial")
            draft.write_text("".join(map(_line, self)))
            draft.rename(self._path)
        else:
            with self._path.open("a") as file:
                file.write(_line(ledger))

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
        self._ledgers.clear()


def _line(ledger: Ledger) -> str:
    return json.dumps(ledger.to_json(), separators=(",", ":")) + "\n"


def differences(old: Ledger, new: Ledger) -> list[str]:
    """Figures that are not what they were, each in a line."""
    before, after = _figures(old.to_json()), _figures(new.to_json())
    names = sorted(before.keys() | after.keys())
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if before.get(name) != after.get(name)]


def _figures(value: object, name: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {name: value}
    return {key: figure for part, item in items for key, figure in _figures(item, f"{name}.{part}".strip(".")).items()}
