"""The ledgers that are committed, and how new ones come to be: tests/rehearsal/ledgers/PRESET.rank_N.json."""

from __future__ import annotations

import json
from pathlib import Path

from tests.rehearsal.ledger import Ledger

LEDGERS = Path(__file__).parent / "ledgers"


def committed(key: str, folder: Path = LEDGERS) -> Ledger | None:
    path = folder / f"{key}.json"
    return Ledger.from_json(json.loads(path.read_text())) if path.exists() else None


def commit(ledger: Ledger, folder: Path = LEDGERS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{ledger.key}.json").write_text(json.dumps(ledger.to_json(), indent=1) + "\n")


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
