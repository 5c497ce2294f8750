"""The numbers of a figure in columns, of which its traces, its table and its description are all made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_sspo.artifacts.interval import Interval

_DIGITS = 6


@dataclass(frozen=True)
class Frame:
    """Rows of texts, numbers and intervals under the columns' names; None where nothing is known."""

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __getitem__(self, name: str) -> list[Any]:
        """A column."""
        position = list(self.names).index(name)
        return [row[position] for row in self.rows]

    def where(self, name: str, value: Any) -> "Frame":
        """The rows with this value in a column."""
        return Frame(self.names, [row for row, own in zip(self.rows, self[name], strict=True) if own == value])

    def known(self, name: str) -> "Frame":
        """The rows with any value in a column."""
        return Frame(self.names, [row for row, own in zip(self.rows, self[name], strict=True) if own is not None])

    def thinned(self, most: int) -> "Frame":
        """At most about so many rows, evenly spaced, the last one among them."""
        every, last = -(-len(self.rows) // most), len(self.rows) - 1
        return Frame(self.names, [row for n, row in enumerate(self.rows) if n % every == 0 or n == last])

    def spread(self) -> "Frame":
        """As it is listed: numbers rounded, and an interval in three columns."""
        intervals = [any(isinstance(value, Interval) for value in self[name]) for name in self.names]
        names = [
            part
            for name, spread in zip(self.names, intervals, strict=True)
            for part in ((name, "low", "high") if spread else (name,))
        ]
        return Frame(names, [_spread(row, intervals) for row in self.rows])


def drawn(value: Any) -> Any:
    """A cell as it is drawn and listed: numbers to six significant digits, of an interval its mean."""
    if isinstance(value, Interval):
        return drawn(value.mean)
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _spread(row: Sequence[Any], intervals: Sequence[bool]) -> tuple[Any, ...]:
    cells: list[Any] = []
    for value, spread in zip(row, intervals, strict=True):
        ends = (value.mean, value.low, value.high) if isinstance(value, Interval) else (value,) * 3
        cells += map(drawn, ends if spread else (value,))
    return tuple(cells)
