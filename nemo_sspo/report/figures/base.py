"""What all figures share. Fonts, grid and backgrounds are the page's: its script adds them when it draws."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.theme import LIGHT


def figure(traces: Sequence[Any], **layout: Any) -> go.Figure:
    """A figure without Plotly's own template."""
    margin = {"l": 56, "r": 16, "t": 16, "b": 44}
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    base: dict[str, Any] = {"template": go.layout.Template(), "margin": margin, "legend": legend}
    return go.Figure(data=list(traces), layout=go.Layout(**(base | layout)))


def error_bars(wins: Sequence[Interval]) -> dict[str, Any]:
    """Asymmetric bars from bootstrap intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [win.high - win.mean for win in wins],
        "arrayminus": [win.mean - win.low for win in wins],
        "thickness": 1.5,
        "width": 5,
    }


def half_line() -> dict[str, Any]:
    """A line where neither policy wins."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 0.5,
        "y1": 0.5,
        "line": {"color": LIGHT["muted"], "width": 1, "dash": "dot"},
    }


def rounded(value: float | None, digits: int = 4) -> float | None:
    """To significant digits, for tables."""
    return None if value is None else float(f"{value:.{digits}g}")


def whole_ticks(values: Sequence[int]) -> dict[str, Any]:
    """An axis whose ticks are these whole numbers."""
    return {"tickmode": "array", "tickvals": list(values), "ticktext": [str(value) for value in values]}


def late_mean(points: Sequence[tuple[int, float]]) -> float | None:
    """Mean over the second half of (step, value) points."""
    half = [value for _, value in points[len(points) // 2 :]]
    return sum(half) / len(half) if half else None
