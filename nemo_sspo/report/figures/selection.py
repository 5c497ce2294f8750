"""The checkpoints of an iteration against each other, and which of them was taken."""

from nemo_sspo.artifacts.selection import SelectionResult, policy_name
from nemo_sspo.report.blocks import Plot
from nemo_sspo.report.figures.base import HALF, scatter
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.theme import INK, series

_MEASURES = {"win_rate": "win rate", "length_controlled": "win rate at equal length"}
_APART = 0.08
"""Distance of the two measures of one candidate, in candidates."""


def selection_plot(selection: SelectionResult) -> Plot:
    """Both win rates of every candidate with their intervals; a ring marks what was chosen, and by what."""
    candidates, chosen = selection.candidates, selection.chosen
    frame = Frame(
        ("after step", *_MEASURES.values(), "tokens of a response", ""),
        [
            (c.step, c.win_rate, c.length_controlled, c.mean_tokens, "chosen" if number == chosen else "")
            for number, c in enumerate(candidates)
        ],
    )
    traces, said = [], []
    for position, (measure, name) in enumerate(_MEASURES.items()):
        wins = frame[name]
        places = [number + (position - 0.5) * 2 * _APART for number in range(len(candidates))]
        if measure == selection.criterion:
            ring = {"size": 20, "symbol": "circle-open", "line": {"width": 2}}
            at = [places[chosen]], [wins[chosen].mean]
            traces.append(scatter(*at, INK, name="chosen", mode="markers", marker=ring, hoverinfo="skip"))
        traces.append(
            scatter(
                places,
                wins,
                series(position),
                name=name,
                mode="markers",
                marker_symbol=("circle", "square")[position],
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
            )
        )
        said += [f"step {c.step} {name} {win}" for c, win in zip(candidates, wins, strict=True)]
    labels = [f"step {c.step}{' (chosen)' if n == chosen else ''}" for n, c in enumerate(candidates)]
    return Plot(
        key=f"selection-{selection.iteration}",
        title=f"Checkpoints of iteration {selection.iteration} against {policy_name(selection.opponent)}",
        frame=frame,
        traces=traces,
        description=f"{selection.reason} On {selection.prompts} selection prompts: {'; '.join(said)}.",
        layout={
            "xaxis": {"tickmode": "array", "tickvals": list(range(len(candidates))), "ticktext": labels}
            | {"range": [-0.5, len(candidates) - 0.5], "showgrid": False, "zeroline": False},
            "yaxis_title": "win rate",
            "shapes": [HALF],
        },
        note=f"{selection.reason} Bars: bootstrap intervals over the {selection.prompts} selection prompts.",
    )
