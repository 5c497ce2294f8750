"""What a study finds: hypotheses with their verdicts, and tables, as data and as a small JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from nemo_sspo.artifacts.interval import Interval

_DIGITS = 4


@dataclass(frozen=True)
class Finding:
    """A hypothesis and what came of it. The claim stands in the code; whether it held is computed, and may be no."""

    name: str
    claim: str
    """One sentence that the measurement can contradict, with the threshold that decides."""
    source: str
    """Whose claim it is: a paper's theorem or section, or ours."""
    measured: dict[str, float]
    """The numbers that decide, and those that say how clearly."""
    held: bool

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it, numbers with 4 digits."""
        return asdict(self) | {"measured": {name: _short(number) for name, number in self.measured.items()}}


def row_data(row: Any) -> dict[str, Any]:
    """A row's fields; an interval is [mean, low, high], with 4 digits."""
    assert is_dataclass(row)
    return {field.name: _cell(getattr(row, field.name)) for field in fields(row)}


def _cell(value: Any) -> Any:
    if isinstance(value, Interval):
        return [_short(value.mean), _short(value.low), _short(value.high)]
    return value


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def to_json(data: Mapping[str, Any]) -> str:
    """JSON with a key on a line, and an item of a list on a line."""

    def text(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def block(value: Any) -> str:
        return "[\n  " + ",\n  ".join(map(text, value)) + "\n ]" if isinstance(value, list) and value else text(value)

    return "{\n" + ",\n".join(f" {text(key)}: {block(value)}" for key, value in data.items()) + "\n}\n"
