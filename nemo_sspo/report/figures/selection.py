"""The checkpoints of an iteration against each other, and which of them was taken."""

import plotly.graph_objects as go

from nemo_sspo.artifacts.selection import SelectionResult, policy_name
from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.figures.base import error_bars, figure, half_line, rounded
from nemo_sspo.report.theme import LIGHT, series

_MEASURES = {"win_rate": "win rate", "length_controlled": "win rate at equal length"}
_APART = 0.08
"""Distance of the two measures of one candidate, in candidates."""


def selection_plot(selection: SelectionResult) -> Plot:
    """Both win rates of every candidate with their intervals; a ring marks what was chosen, and by what."""
    candidates, chosen = selection.candidates, selection.chosen
    opponent = policy_name(selection.opponent)
    traces, said = [], []
    for position, (measure, name) in enumerate(_MEASURES.items()):
        wins = [getattr(candidate, measure) for candidate in candidates]
        places = [number + (position - 0.5) * 2 * _APART for number in range(len(candidates))]
        if measure == selection.criterion:
            traces.append(_ring(places[chosen], wins[chosen].mean))
        traces.append(
            go.Scatter(
                x=places,
                y=[win.mean for win in wins],
                error_y=error_bars(wins),
                name=name,
                mode="markers",
                marker={"size": 9, "symbol": ("circle", "square")[position], "color": series(position)},
                text=[str(win) for win in wins],
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
            )
        )
        said += [f"step {c.step} {name} {win}" for c, win in zip(candidates, wins, strict=True)]
    labels = [f"step {c.step}{' (chosen)' if n == chosen else ''}" for n, c in enumerate(candidates)]
    return Plot(
        key=f"selection-{selection.iteration}",
        title=f"Checkpoints of iteration {selection.iteration} against {opponent}",
        figure=figure(
            traces,
            xaxis={"tickmode": "array", "tickvals": list(range(len(candidates))), "ticktext": labels}
            | {"range": [-0.5, len(candidates) - 0.5], "showgrid": False, "zeroline": False},
            yaxis={"title": {"text": "win rate"}},
            shapes=[half_line()],
        ),
        description=f"{selection.reason} On {selection.prompts} selection prompts: {'; '.join(said)}.",
        table=_table(selection),
        note=f"{selection.reason} Bars: bootstrap intervals over the {selection.prompts} selection prompts.",
    )


def _ring(x: float, y: float) -> go.Scatter:
    return go.Scatter(
        x=[x],
        y=[y],
        name="chosen",
        mode="markers",
        marker={"size": 20, "symbol": "circle-open", "color": LIGHT["ink"], "line": {"width": 2}},
        hoverinfo="skip",
    )


def _table(selection: SelectionResult) -> Table:
    rows = []
    for number, each in enumerate(selection.candidates):
        ends = [(win.mean, win.low, win.high) for win in (each.win_rate, each.length_controlled)]
        figures = [rounded(value) for value in (*ends[0], *ends[1], each.mean_tokens)]
        rows.append((each.step, *figures, "chosen" if number == selection.chosen else ""))
    equal = ("at equal length", "low", "high")
    return Table(("after step", "win rate", "low", "high", *equal, "tokens of a response", ""), rows)
