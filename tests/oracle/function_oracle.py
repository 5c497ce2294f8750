"""Functions that a test names as ``oracle.function``."""

from collections.abc import Sequence

from nemo_sspo.oracle.protocol import Row


def prefers_length(rows: Sequence[Row], weight: float = 1.0) -> list[float]:
    """Longer is better, and the place shown first by a little."""
    return [weight * (len(row.first) - len(row.second)) / 100 + 0.01 for row in rows]


def hates(rows: Sequence[Row], word: str) -> list[float]:
    """Not a number for every row with a word in it."""
    return [float("nan") if word in row.first + row.second else 0.0 for row in rows]


def one_too_few(rows: Sequence[Row]) -> list[float]:
    """A mistake."""
    return [0.0] * (len(rows) - 1)


def no_numbers(rows: Sequence[Row]) -> list[str]:
    """A mistake."""
    return ["better"] * len(rows)
