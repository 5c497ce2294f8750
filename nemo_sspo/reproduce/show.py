"""A table for people: our number beside the published one in every cell, and why one is not there."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from nemo_sspo.errors import UserError
from nemo_sspo.reproduce.declarations import Table
from nemo_sspo.reproduce.measures.registry import ours
from nemo_sspo.reproduce.needs import Cell, cells
from nemo_sspo.reproduce.place import Missing, Place

_LONGEST_TEXT = 60


@dataclass(frozen=True)
class Measured:
    """A cell with what was found."""

    cell: Cell
    found: float | str | None
    reason: str
    """Why nothing was found."""
    digits: int
    """Of the column's numbers behind the point."""

    @property
    def text(self) -> str:
        """``ours / published``, a dash for what is not there."""
        published = "-" if self.cell.published is None else f"{self.cell.published:.{self.digits}f}"
        if isinstance(self.found, str):
            return textwrap.shorten(self.found, _LONGEST_TEXT, placeholder=" …")
        return f"{'-' if self.found is None else f'{self.found:.{self.digits}f}'} / {published}"


def measure(place: Place, table: Table) -> list[list[Measured]]:
    """Every cell, read from what is there now."""
    digits = _digits(table)
    return [[_measured(place, *each) for each in zip(row, digits, strict=True)] for row in cells(table)]


def reasons(measured: Sequence[Sequence[Measured]]) -> list[str]:
    """Why cells have no number of ours, each reason with the rows that it holds for."""
    named: dict[str, dict[str, None]] = {}
    for row in measured:
        for cell in row:
            if cell.reason:
                named.setdefault(f"{cell.cell.column.measure}: {cell.reason}", {})[cell.cell.row.name] = None
    return [f"{reason} ({', '.join(rows)})" for reason, rows in named.items()]


def chosen_row(table: Table, measured: Sequence[Sequence[Measured]]) -> str | None:
    """The row with the largest number of ours in the column that the table chooses by; None before all have one."""
    if table.choose is None:
        return None
    place = [column.name for column in table.columns].index(table.choose)
    found = {row.name: cells_[place].found for row, cells_ in zip(table.rows, measured, strict=True)}
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    return max(numbers, key=lambda name: numbers[name]) if len(numbers) == len(table.rows) else None


def as_data(measured: Sequence[Sequence[Measured]]) -> list[dict[str, object]]:
    """A row per cell, for JSON."""
    return [
        {
            "row": cell.cell.row.name,
            "column": cell.cell.column.name,
            "policy": str(cell.cell.policy) if cell.cell.policy else None,
            "published": cell.cell.published,
            "ours": cell.found,
            "missing": cell.reason or None,
        }
        for row in measured
        for cell in row
    ]


def _measured(place: Place, cell: Cell, digits: int) -> Measured:
    try:
        return Measured(cell, ours(place, cell), "", digits)
    except Missing as missing:
        return Measured(cell, None, str(missing), digits)
    except UserError as error:
        return Measured(cell, None, f"error: {error}", digits)


def _digits(table: Table) -> list[int]:
    """By column: as many as the paper prints, else three."""
    columns = zip(*(row.published for row in table.rows), strict=True)
    return [
        max((_behind_the_point(number) for number in column if number is not None), default=3) for column in columns
    ]


def _behind_the_point(number: float) -> int:
    return len(repr(number).partition(".")[2]) if number % 1 else 0
