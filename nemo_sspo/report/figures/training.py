"""Training curves, one small plot per metric and one line per iteration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.training import Step1Identity, TrainingCurve, full_batches
from nemo_sspo.report.figures.base import log_axis, scatter
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.theme import series


@dataclass(frozen=True)
class Metric:
    """How a metric of metrics.jsonl is drawn."""

    names: tuple[str, ...]
    """Columns; a second one is drawn dashed."""
    title: str
    unit: str
    """What its axis says."""
    note: str
    log: bool = False


METRICS = (
    Metric(("loss",), "Loss", "loss", "preference loss + λ repulsion, mean over the pairs of the batch"),
    Metric(("preference_loss",), "Preference loss", "loss", "starts at its closed form"),
    Metric(
        ("d_chosen", "d_rejected"),
        "Log-ratios d_w and d_l",
        "nats",
        "log π_θ(y|x) / π_t(y|x) of the chosen (line) and the rejected response (dashed)",
    ),
    Metric(("margin",), "Margin d_w - d_l", "nats", "how much further the chosen response has moved"),
    Metric(
        ("accuracy",),
        "Pairs with d_w > d_l",
        "share",
        "share of the batch; not at step 1, where only rounding tells d_w from d_l",
    ),
    Metric(("repulsion",), "Repulsion", "repulsion", "before it is multiplied by λ"),
    Metric(("pair_cosine",), "Cosine of a pair's states", "cosine", "1: both states point the same way"),
    Metric(
        ("effective_rank",),
        "Effective rank",
        "rank",
        "of the pooled states of a batch; full batches only, a smaller one has a lower rank",
    ),
    Metric(
        ("gradient_ratio",),
        "Gradient ratio",
        "ratio",
        "‖∂ repulsion/∂h‖ / ‖∂ preference/∂h‖: which term leads",
        log=True,
    ),
    Metric(("grad_norm",), "Gradient norm", "norm", "before clipping", log=True),
    Metric(("lr",), "Learning rate", "learning rate", ""),
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
    frame = Frame(("iteration", "step", *metric.names), [row for curve in curves for row in _rows(metric, curve)])
    traces, said = [], []
    for position, curve in enumerate(curves):
        for name, dash in zip(metric.names, ("solid", "dash"), strict=False):
            own = frame.where("iteration", curve.iteration).known(name)
            if not own.rows:
                continue
            steps, values = own["step"], own[name]
            label = f"iteration {curve.iteration}" + (f", {name}" if len(metric.names) > 1 else "")
            mode = "lines+markers" if len(values) < 40 else "lines"
            style = {"mode": mode, "marker_size": 4, "line_dash": dash}
            traces.append(scatter(steps, values, series(position), name=label, **style))
            said.append(f"{label}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}")
    shown = [value for name in metric.names for value in frame.known(name)[name]]
    return Plot(
        key=f"training-{metric.names[0]}",
        title=metric.title,
        frame=frame,
        traces=traces,
        description=f"{metric.title} over the optimizer steps. {'; '.join(said)}.",
        layout={"xaxis_title": "step", "yaxis": _axis(metric, shown), "showlegend": False},
        note=metric.note,
        height=210,
    )


def _axis(metric: Metric, values: Sequence[float]) -> dict[str, Any]:
    scale = log_axis(values) if metric.log and min(values) > 0 else {"exponentformat": "power"}
    return {"title": metric.unit, **scale}


def _rows(metric: Metric, curve: TrainingCurve) -> list[tuple[Any, ...]]:
    """Iteration, step and values of the steps with any."""
    columns = [dict(zip(*_points(curve, name), strict=True)) for name in metric.names]
    steps = [step for step in curve.steps if any(step in column for column in columns)]
    return [(curve.iteration, step, *(column.get(step) for column in columns)) for step in steps]


def _points(curve: TrainingCurve, name: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of a metric."""
    if name == "effective_rank":
        values = full_batches(curve, name)
    else:
        values = list(zip(curve.steps, curve.metrics.get(name, []), strict=False))
    known = [(step, value) for step, value in values if math.isfinite(value)]
    return [step for step, _ in known], [value for _, value in known]
