"""Win rates, response lengths and signs of collapse over the iterations."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.blocks import Plot
from nemo_sspo.report.facts.evaluation import OPPONENTS, Evaluated, Sampled, WinMatrix
from nemo_sspo.report.facts.supervision import Supervision
from nemo_sspo.report.facts.training import TrainingCurve, full_batches
from nemo_sspo.report.figures.base import around, late_mean, scatter
from nemo_sspo.report.figures.wins import win_lines
from nemo_sspo.report.frame import Frame, drawn
from nemo_sspo.report.theme import HEAT, series

_DISTINCT = "share of the responses to a prompt that differ from each other, held-out prompts"
AT_EQUAL_LENGTH = "at equal length"
_MEASURES = {
    AT_EQUAL_LENGTH: "At equal length: with the advantage of longer answers taken out.",
    "best of": "Best of n: the oracle that judges picks the answer too, so that it is no independent measurement.",
}
"""What a measure is, by how its name begins."""
OPPONENT_NAMES = {"base": "against the base", "previous": "against the previous iteration"}


def win_rate_plots(evaluations: Sequence[Evaluated]) -> list[Plot]:
    """Held-out win rates of each iteration with their intervals, and three measures of the one against the base."""
    by_opponent = {
        OPPONENT_NAMES[name]: {e.iteration: e.wins[name] for e in evaluations if name in e.wins} for name in OPPONENTS
    }
    plots = [win_lines("win-rates", "Oracle win rate on held-out prompts", "opponent", by_opponent)]
    measured = {name: points for name, points in against_base(evaluations).items() if points}
    if len(measured) > 1:
        note = " ".join(said for begins, said in _MEASURES.items() if any(name.startswith(begins) for name in measured))
        plots.append(win_lines("win-measures", "Against the base, measured otherwise", "answers", measured, note))
    return [plot for plot in plots if plot is not None]


def against_base(evaluations: Sequence[Evaluated]) -> dict[str, dict[int, Interval]]:
    """Win rates against the base by measure and iteration."""
    return {
        "as sampled": {e.iteration: e.wins["base"] for e in evaluations if "base" in e.wins},
        AT_EQUAL_LENGTH: {e.iteration: e.at_equal_length for e in evaluations if e.at_equal_length is not None},
        **best_of_n_lines(evaluations),
    }


def best_of_n_lines(evaluations: Sequence[Evaluated]) -> dict[str, dict[int, Interval]]:
    """Win rates of the best of n by n and iteration; empty where it was not asked for."""
    lines: dict[str, dict[int, Interval]] = {}
    for evaluated in evaluations:
        if (best := evaluated.best_of_n) is not None:
            lines.setdefault(f"best of {best.n}", {})[evaluated.iteration] = best.win
    return lines


def matrix_plot(matrix: WinMatrix) -> Plot:
    """Heat map of all checkpoints and the base against each other."""
    names = {policy: "base" if policy == 0 else f"iteration {policy}" for policy in matrix.policies}
    rows = [(names[first], names[second], win) for (first, second), win in sorted(matrix.cells.items())]
    wins = [[matrix.cells.get((first, second)) for second in matrix.policies] for first in matrix.policies]
    trace = go.Heatmap(
        x=list(names.values()),
        y=list(names.values()),
        z=[[drawn(win) for win in row] for row in wins],
        text=[[f"{w.mean:.3f}<br>{w.low:.2f} to {w.high:.2f}" if w else "" for w in row] for row in wins],
        texttemplate="%{text}",
        hovertemplate="%{y} against %{x}: %{z:.3f}<extra></extra>",
        meta=HEAT,
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    later = [(first, second) for first, second in sorted(matrix.cells) if first > second]
    said = [f"{names[first]} against {names[second]} {matrix.cells[first, second]}" for first, second in later]
    return Plot(
        key="win-matrix",
        title="Who beats whom",
        frame=Frame(("policy", "against", "win rate"), rows),
        traces=[trace],
        description=f"Win rates of the row's policy against the column's: {'; '.join(said)}.",
        layout={
            "xaxis": {"title": "opponent", "showgrid": False, "ticks": ""},
            "yaxis": {"title": "policy", "autorange": "reversed", "showgrid": False, "ticks": ""},
        },
        note=f"Win rate of the row against the column, with its bootstrap interval.{_empty(wins)}",
        height=max(300, 110 + 54 * len(names)),
    )


def _empty(wins: Sequence[Sequence[Interval | None]]) -> str:
    """What empty cells are, where there are any but a policy's against itself."""
    missing = any(win is None for i, row in enumerate(wins) for j, win in enumerate(row) if i != j)
    return " Empty: not compared." if missing else ""


def length_plot(
    evaluations: Sequence[Evaluated], sampled: Sequence[Sampled], supervisions: Sequence[Supervision]
) -> Plot | None:
    """Mean tokens of a response: held out, sampled for training, chosen and rejected."""
    held_out = {e.iteration: e.tokens["new"] for e in evaluations if "new" in e.tokens}
    if evaluations and "base" in evaluations[0].tokens:
        held_out[0] = evaluations[0].tokens["base"]
    lines = {
        "held-out responses": held_out,
        "training responses": {s.iteration: s.tokens for s in sampled},
        "chosen": {s.iteration: s.chosen_tokens for s in supervisions if s.chosen_tokens is not None},
        "rejected": {s.iteration: s.rejected_tokens for s in supervisions if s.rejected_tokens is not None},
    }
    notes = (
        ("Held-out responses of iteration t are of the policy that iteration t made (0: the base).", held_out),
        ("Training responses of iteration t were sampled from the policy before it.", sampled),
    )
    note = " ".join(said for said, drawn_from in notes if drawn_from)
    return by_iteration("lengths", "Length of responses", "tokens", lines, note)


def collapse_plots(curves: Sequence[TrainingCurve], evaluations: Sequence[Evaluated]) -> list[Plot]:
    """What would fall when responses become one another, over the iterations."""
    finished = [curve for curve in curves if curve.finished]
    distinct = {e.iteration: e.distinct["new"] for e in evaluations if "new" in e.distinct}
    if evaluations and "base" in evaluations[0].distinct:
        distinct[0] = evaluations[0].distinct["base"]
    lines = (
        ("pair_cosine", "Cosine of a pair's states", "cosine", "mean over the second half of the steps"),
        ("effective_rank", "Effective rank of the states", "rank", "mean over the second half of the steps"),
    )
    plots = [
        by_iteration(
            f"collapse-{name}",
            title,
            unit,
            {title: {c.iteration: late_mean(full_batches(c, name)) for c in finished}},
            note,
        )
        for name, title, unit, note in lines
        if any(name in curve.metrics for curve in finished)
    ]
    shares = {"held-out responses": distinct}
    plots.append(by_iteration("collapse-distinct", "Distinct responses", "share", shares, _DISTINCT))
    return [plot for plot in plots if plot is not None]


def by_iteration(
    key: str, title: str, unit: str, lines: Mapping[str, Mapping[int, float | None]], note: str = ""
) -> Plot | None:
    """One line per name over the iterations; None when nothing is known."""
    known = {
        name: {i: value for i, value in sorted(points.items()) if value is not None} for name, points in lines.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return None
    iterations = sorted({iteration for points in known.values() for iteration in points})
    frame = Frame(("iteration", *known), [(i, *(points.get(i) for points in known.values())) for i in iterations])
    traces, said = [], []
    for position, name in enumerate(known):
        own = frame.known(name)
        style = {"mode": "lines+markers", "marker_symbol": ("circle", "square", "diamond", "cross")[position % 4]}
        traces.append(scatter(own["iteration"], own[name], series(position), name=name, **style))
        points = zip(own["iteration"], own[name], strict=True)
        said.append(f"{name}: " + ", ".join(f"{value:.4g} ({i})" for i, value in points))
    return Plot(
        key=key,
        title=title,
        frame=frame,
        traces=traces,
        description=f"{title} by iteration. {'; '.join(said)}.",
        layout={
            "xaxis": around(iterations),
            "yaxis": {"title": unit, "rangemode": "tozero"},
            "showlegend": len(traces) > 1,
        },
        note=note,
        height=260,
    )
