"""What all figures share. Colours, fonts, grid and backgrounds are the theme's templates'."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.frame import drawn

HALF = {"xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5}
"""A line where neither policy wins."""


def scatter(x: Sequence[Any], y: Sequence[Any], meta: str, **style: Any) -> go.Scatter:
    """Points or a line in the style `meta`; intervals get their bars, and their text to point at."""
    return go.Scatter(**_along("x", x), **_along("y", y), meta=meta, **style)


def error_bars(wins: Sequence[Interval]) -> dict[str, Any]:
    """Asymmetric bars from bootstrap intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [win.high - win.mean for win in wins],
        "arrayminus": [win.mean - win.low for win in wins],
    }


def around(iterations: Iterable[int]) -> dict[str, Any]:
    """An axis of iterations: a tick for each, and some room before the first and after the last."""
    ticks = sorted(set(iterations))
    room = {"range": [ticks[0] - 0.5, ticks[-1] + 0.5]}
    return {"title": "iteration", "tickmode": "array", "tickvals": ticks, "ticktext": [*map(str, ticks)], **room}


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis with ticks that these positive values have between them."""
    known = list(values)
    ratio = max(known) / min(known)
    # Within a factor of 3 plotly's own ticks lie evenly; 1, 2 and 5 of each decade would miss them.
    decades = math.log10(ratio)
    ticks = {} if ratio < 3 else {"dtick": "D2" if decades < 2 else math.ceil(decades / 5)}
    return {"type": "log", "exponentformat": "power", **ticks}


def late_mean(points: Sequence[tuple[int, float]]) -> float | None:
    """Mean over the second half of (step, value) points."""
    half = [value for _, value in points[len(points) // 2 :]]
    return sum(half) / len(half) if half else None


def _along(axis: str, values: Sequence[Any]) -> dict[str, Any]:
    shown = {axis: [drawn(value) for value in values]}
    if not values or not isinstance(values[0], Interval):
        return shown
    return shown | {f"error_{axis}": error_bars(values), "text": [str(value) for value in values]}
