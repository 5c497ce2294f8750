"""Win rates over the iterations: a line with its intervals for each opponent, measure or run."""

from collections.abc import Mapping

import plotly.graph_objects as go

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.figures.base import error_bars, figure, half_line, rounded, whole_ticks
from nemo_sspo.report.theme import series

_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")
_BESIDE = 0.06
"""Iterations between two lines, so that their intervals do not cover each other."""


def win_lines(
    key: str, title: str, what: str, lines: Mapping[str, Mapping[int, Interval]], note: str = ""
) -> Plot | None:
    """One line per name, each a win rate by iteration; None where nothing is known.

    Args:
        what: heading of the names in the table.
        note: said below the figure, before what its bars are.
    """
    known = {name: dict(sorted(points.items())) for name, points in lines.items()}
    if not any(known.values()):
        return None
    iterations = sorted({iteration for points in known.values() for iteration in points})
    traces = [
        go.Scatter(
            x=[iteration + (position - (len(known) - 1) / 2) * _BESIDE for iteration in points],
            y=[win.mean for win in points.values()],
            error_y=error_bars(list(points.values())),
            name=name,
            mode="lines+markers",
            marker={"size": 9, "symbol": _SYMBOLS[position % len(_SYMBOLS)]},
            line={"color": series(position), "width": 2},
            text=[str(win) for win in points.values()],
            hovertemplate=f"{name}: %{{text}}<extra></extra>",
        )
        for position, (name, points) in enumerate(known.items())
        if points
    ]
    found = [(name, iteration, win) for name, points in known.items() for iteration, win in points.items()]
    return Plot(
        key=key,
        title=title,
        figure=figure(
            traces,
            xaxis={"title": {"text": "iteration"}, "range": [iterations[0] - 0.5, iterations[-1] + 0.5]}
            | whole_ticks(iterations),
            yaxis={"title": {"text": "win rate"}},
            shapes=[half_line()],
            showlegend=True,
        ),
        description=f"{title}, with bootstrap intervals: "
        + "; ".join(f"iteration {iteration}, {name}: {win}" for name, iteration, win in found)
        + ".",
        table=Table(
            (what, "iteration", "win rate", "low", "high"),
            [(name, i, rounded(win.mean), rounded(win.low), rounded(win.high)) for name, i, win in found],
        ),
        note=f"{note} Bars: bootstrap intervals over the held-out prompts. Dotted: ½, where neither wins.".lstrip(),
    )
