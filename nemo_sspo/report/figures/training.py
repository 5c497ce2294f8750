"""Training curves, one small plot per metric and one line per iteration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.training import Step1Identity, TrainingCurve, full_batches
from nemo_sspo.report.figures.base import figure, rounded
from nemo_sspo.report.theme import series


@dataclass(frozen=True)
class Metric:
    """How a metric of metrics.jsonl is drawn."""

    names: tuple[str, ...]
    """Columns; a second one is drawn dashed."""
    title: str
    note: str
    log: bool = False


METRICS = (
    Metric(("loss",), "Loss", "preference loss + λ repulsion, mean over the pairs of the batch"),
    Metric(("preference_loss",), "Preference loss", "starts at its closed form"),
    Metric(
        ("d_chosen", "d_rejected"),
        "Log-ratios d_w and d_l",
        "log π_θ(y|x) / π_t(y|x) of the chosen (line) and the rejected response (dashed), in nats",
    ),
    Metric(("margin",), "Margin d_w - d_l", "in nats"),
    Metric(
        ("accuracy",),
        "Pairs with d_w > d_l",
        "share of the batch; not at step 1, where only rounding tells d_w from d_l",
    ),
    Metric(("repulsion",), "Repulsion", "before it is multiplied by λ"),
    Metric(("pair_cosine",), "Cosine of a pair's states", "1: the chosen and the rejected state point the same way"),
    Metric(
        ("effective_rank",),
        "Effective rank",
        "of the pooled states of a batch; full batches only, a smaller one has a lower rank",
    ),
    Metric(("gradient_ratio",), "Gradient ratio", "‖∂ repulsion/∂h‖ / ‖∂ preference/∂h‖: which term leads", log=True),
    Metric(("grad_norm",), "Gradient norm", "before clipping", log=True),
    Metric(("lr",), "Learning rate", ""),
)


def training_plots(curves: Sequence[TrainingCurve]) -> list[Plot]:
    """A plot for every metric that was logged."""
    return [_plot(metric, curves) for metric in METRICS if any(_points(c, metric.names[0])[0] for c in curves)]


def identity_table(identities: Sequence[Step1Identity]) -> Table:
    """The loss at step 1 against its closed form."""
    rows = [
        (
            each.iteration,
            f"{each.measured:.7g}",
            "-" if each.closed_form is None else f"{each.closed_form:.7g}",
            "-" if each.relative_difference is None else f"{each.relative_difference:.1e}",
            {True: "holds", False: "does not hold", None: "not applicable: the reference is the base"}[each.holds],
        )
        for each in identities
    ]
    return Table(
        ("iteration", "loss at step 1", "closed form", "relative difference", ""),
        rows,
        title="Step-1 identity",
        note="With the policy at its reference every log-ratio is 0: the preference loss must be its closed form.",
    )


def _plot(metric: Metric, curves: Sequence[TrainingCurve]) -> Plot:
    traces, said, shown = [], [], []
    for position, curve in enumerate(curves):
        for name, dash in zip(metric.names, ("solid", "dash"), strict=False):
            steps, values = _points(curve, name)
            if not steps:
                continue
            shown += values
            label = f"iteration {curve.iteration}" + (f", {name}" if len(metric.names) > 1 else "")
            traces.append(
                go.Scatter(
                    x=steps,
                    y=[rounded(value, 6) for value in values],
                    name=label,
                    mode="lines+markers" if len(values) < 40 else "lines",
                    marker={"size": 4},
                    line={"color": series(position), "dash": dash, "width": 1.8},
                    showlegend=False,
                )
            )
            said.append(f"{label}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}")
    return Plot(
        key=f"training-{metric.names[0]}",
        title=metric.title,
        figure=figure(
            traces,
            xaxis={"title": {"text": "step"}},
            yaxis=_axis(metric, shown),
            margin={"l": 8, "r": 8, "t": 8, "b": 40},
        ),
        description=f"{metric.title} over the optimizer steps. {'; '.join(said)}.",
        table=_table(metric, curves),
        note=metric.note,
        height=210,
    )


def _axis(metric: Metric, values: Sequence[float]) -> dict[str, Any]:
    if not metric.log or min(values) <= 0:
        return {"exponentformat": "power"}
    decades = math.log10(max(values) / min(values))
    return {"type": "log", "exponentformat": "power", "dtick": "D2" if decades < 2 else math.ceil(decades / 5)}


def _table(metric: Metric, curves: Sequence[TrainingCurve]) -> Table:
    rows = []
    for curve in curves:
        columns = [dict(zip(*_points(curve, name), strict=True)) for name in metric.names]
        steps = [step for step in curve.steps if all(step in column for column in columns)]
        rows += [(curve.iteration, step, *(rounded(column[step], 6) for column in columns)) for step in _thinned(steps)]
    return Table(("iteration", "step", *metric.names), rows)


def _thinned(steps: Sequence[int], most: int = 50) -> list[int]:
    """About `most` of the steps, the first and the last among them."""
    stride = max(1, math.ceil(len(steps) / most))
    return [step for i, step in enumerate(steps) if i % stride == 0 or i == len(steps) - 1]


def _points(curve: TrainingCurve, name: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of a metric."""
    if name == "effective_rank":
        values = full_batches(curve, name)
    else:
        values = list(zip(curve.steps, curve.metrics.get(name, []), strict=False))
    known = [(step, value) for step, value in values if math.isfinite(value)]
    return [step for step, _ in known], [value for _, value in known]
