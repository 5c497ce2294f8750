"""Similarity against margin before and after the gate (S-SPPO Fig. 2 and 3), the gates side by side, the targets."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot
from nemo_sspo.report.facts.gate_view import Bins, GateView
from nemo_sspo.report.facts.supervision import Histograms, Supervision
from nemo_sspo.report.figures.base import scatter
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.theme import INK, MUTED, series

_DASHES = ("solid", "dash", "dot")
_PANEL_POINTS = 500
_TARGETS = {
    "p_chosen": "chosen, before",
    "target_chosen": "chosen, after",
    "p_rejected": "rejected, before",
    "target_rejected": "rejected, after",
}


def around_the_gate(view: GateView) -> list[Plot]:
    """Two plots on the same axes: margins as the oracle gives them, and as the run's gate leaves them."""
    top = 1.05 * max([*view.margin_before, *(mean for mean in view.before.means if mean is not None), 0.1])
    correlation = "" if view.correlation is None else f" Correlation of similarity and margin: {view.correlation:+.2f}."
    shown = len(view.similarity)
    part = "" if shown == view.pairs else f" Points: {shown:,} of {view.pairs:,} {view.what}; the means are of all."
    panels = (
        ("before", view.margin_before, view.before, series(1), correlation),
        ("after", view.margin_after, view.after, series(0), ""),
    )
    return [
        Plot(
            key=f"margin-{name}-{view.iteration}",
            title=f"Iteration {view.iteration}: margin {name} the gate",
            frame=_frame({f"{name} the gate": bins}),
            traces=[_points(view.similarity, margins, colour, size=4), _bin_means(bins)],
            description=(
                f"Margins of {view.pairs:,} {view.what} over their semantic similarity, {name} the gate: "
                f"{bins.mean:.3f} on average.{also}"
            ),
            layout=_over_similarity(yaxis={"title": "margin", "range": [0, top]}, showlegend=False),
            note=f"Line: mean of a bin.{part}",
        )
        for name, margins, bins, colour, also in panels
    ]


def gate_plot(view: GateView) -> Plot:
    """Mean margins under every gate kind."""
    traces = [
        scatter(
            _centres(bins.edges),
            bins.means,
            series(position),
            mode="lines+markers",
            marker_size=5,
            name=name,
            line_dash=_DASHES[position // 2 % 3],
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
        for position, (name, bins) in enumerate(view.by_gate.items())
    ]
    said = "; ".join(f"{name} {bins.mean:.3f} on average" for name, bins in view.by_gate.items())
    return Plot(
        key=f"gates-{view.iteration}",
        title=f"What each kind of gate leaves of these margins (iteration {view.iteration})",
        frame=_frame(view.by_gate),
        traces=traces,
        description=f"Mean margin over similarity under every kind of gate at its default parameters: {said}.",
        layout=_over_similarity(yaxis_title="mean margin", hovermode="x unified"),
        note=f"Every kind of gate with its default parameters, on the same {view.what}.",
    )


def gate_panels(view: GateView) -> list[Plot]:
    """The pairs under every kind of gate, one small scatter each."""
    every = max(1, len(view.similarity) // _PANEL_POINTS)
    ungated = view.by_gate["none"]
    without = scatter(_centres(ungated.edges), ungated.means, MUTED, mode="lines", line_dash="dot")
    return [
        Plot(
            key=f"gate-{name}-{view.iteration}",
            title=f"Gate “{name}”",
            frame=_frame({"without a gate": ungated, f"under {name}": bins}),
            traces=[
                _points(view.similarity[::every], view.points_by_gate[name][::every], series(position), size=3),
                without,
                _bin_means(bins),
            ],
            description=(
                f"Margins of iteration {view.iteration}'s {view.what} under the gate {name}: {bins.mean:.3f} on "
                f"average, {ungated.mean:.3f} without a gate."
            ),
            layout=_over_similarity(yaxis={"title": "margin", "range": [0, 1]}, showlegend=False),
            height=210,
        )
        for position, (name, bins) in enumerate(view.by_gate.items())
    ]


def target_plot(facts: Supervision, histograms: Histograms) -> Plot:
    """Histograms of win rates and of the targets they became."""
    edges = histograms.edges
    columns = [histograms.counts[name] for name in _TARGETS]
    frame = Frame(("win rate", *_TARGETS.values()), list(zip(_ranges(edges), *columns, strict=True)))
    traces = [
        scatter(
            _centres(edges),
            frame[label],
            series(position // 2),
            name=label,
            mode="lines",
            line={"shape": "hvh", "dash": "solid" if position % 2 else "dot"},
            fill="tozeroy" if position % 2 else None,
        )
        for position, label in enumerate(_TARGETS.values())
    ]
    return Plot(
        key=f"targets-{facts.iteration}",
        title=f"Iteration {facts.iteration}: targets",
        frame=frame,
        traces=traces,
        description=(
            "Histograms of the chosen and the rejected responses' win rates before the gate and targets after it. "
            f"After the gate they lie {facts.margin_after:.3f} apart on average, before {facts.margin_before:.3f}."
        ),
        layout={"xaxis": {"title": "win rate", "range": [0, 1]}, "yaxis_title": "pairs"},
        note="Dotted: as the oracle gives them; filled: after the gate, which draws them towards ½.",
    )


def _points(x: Sequence[float], y: Sequence[float], colour: str, *, size: int) -> go.Scatter:
    return scatter(x, y, colour, mode="markers", marker={"size": size, "opacity": 0.35}, hoverinfo="skip")


def _bin_means(bins: Bins) -> go.Scatter:
    hover = "similarity about %{x:.2f}<br>mean margin %{y:.3f}<extra></extra>"
    return scatter(_centres(bins.edges), bins.means, INK, mode="lines+markers", marker_size=4, hovertemplate=hover)


def _frame(columns: Mapping[str, Bins]) -> Frame:
    first = next(iter(columns.values()))
    means = [bins.means for bins in columns.values()]
    names = ("similarity", "pairs", *(f"mean margin, {name}" for name in columns))
    return Frame(names, list(zip(_ranges(first.edges), first.counts, *means, strict=True)))


def _over_similarity(**layout: Any) -> dict[str, Any]:
    return {"xaxis": {"title": "similarity", "range": [0, 1]}, **layout}


def _centres(edges: Sequence[float]) -> list[float]:
    return [round((low + high) / 2, 4) for low, high in itertools.pairwise(edges)]


def _ranges(edges: Sequence[float]) -> list[str]:
    return [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
