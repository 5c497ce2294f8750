"""Win rates over the iterations: a line with its intervals for each opponent, measure or run."""

from collections.abc import Mapping

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.blocks import Plot
from nemo_sspo.report.figures.base import HALF, around, scatter
from nemo_sspo.report.frame import Frame
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
    rows = [(name, iteration, win) for name, points in lines.items() for iteration, win in sorted(points.items())]
    if not rows:
        return None
    frame = Frame((what, "iteration", "win rate"), rows)
    traces = [
        scatter(
            [iteration + (position - (len(lines) - 1) / 2) * _BESIDE for iteration in own["iteration"]],
            own["win rate"],
            series(position),
            name=name,
            mode="lines+markers",
            marker_symbol=_SYMBOLS[position % len(_SYMBOLS)],
            hovertemplate=f"{name}: %{{text}}<extra></extra>",
        )
        for position, name in enumerate(lines)
        if (own := frame.where(what, name)).rows
    ]
    said = "; ".join(f"iteration {iteration}, {name}: {win}" for name, iteration, win in rows)
    return Plot(
        key=key,
        title=title,
        frame=frame,
        traces=traces,
        description=f"{title}, with bootstrap intervals: {said}.",
        layout={"xaxis": around(frame["iteration"]), "yaxis_title": "win rate", "shapes": [HALF], "showlegend": True},
        note=f"{note} Bars: bootstrap intervals over the held-out prompts. Dotted: ½, where neither wins.".lstrip(),
    )
