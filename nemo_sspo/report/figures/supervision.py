"""Similarity against margin before and after the gate (S-SPPO Fig. 2 and 3), the gates side by side, the targets."""

import itertools

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.gate_view import Bins, GateView
from nemo_sspo.report.facts.supervision import Supervision
from nemo_sspo.report.figures.base import figure, rounded
from nemo_sspo.report.theme import LIGHT, series

_DASHES = ("solid", "dash", "dot")
_PANEL_POINTS = 500
_SIMILARITY = {"title": {"text": "similarity"}, "range": [0, 1]}
_SMALL = {"l": 8, "r": 8, "t": 8, "b": 40}


def around_the_gate(view: GateView) -> list[Plot]:
    """Two plots on the same axes: margins as the oracle gives them, and as the run's gate leaves them."""
    top = 1.05 * max([*view.margin_before, *(mean for mean in view.before.means if mean is not None), 0.1])
    panels = (
        ("before", view.margin_before, view.before, series(1)),
        ("after", view.margin_after, view.after, series(0)),
    )
    plots = []
    for name, margins, bins, colour in panels:
        plots.append(
            Plot(
                key=f"margin-{name}-{view.iteration}",
                title=f"Iteration {view.iteration}: margin {name} the gate",
                figure=figure(
                    [_points(view.similarity, margins, colour, size=4), _bin_means(bins)],
                    showlegend=False,
                    xaxis=_SIMILARITY,
                    yaxis={"title": {"text": "margin"}, "range": [0, top]},
                    margin=_SMALL,
                ),
                description=(
                    f"Margins of {view.pairs:,} {view.what} over their semantic similarity, {name} the gate: "
                    f"{bins.mean:.3f} on average." + _correlation_text(view, name)
                ),
                table=_bins_table({f"{name} the gate": bins}),
                note=_points_note(view),
            )
        )
    return plots


def gate_plot(view: GateView) -> Plot:
    """Mean margins under every gate kind."""
    traces = [
        go.Scatter(
            x=_centres(bins),
            y=bins.means,
            mode="lines+markers",
            marker={"size": 5},
            name=name,
            line={"color": series(position), "width": 2, "dash": _DASHES[position // 2 % 3]},
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
        for position, (name, bins) in enumerate(view.by_gate.items())
    ]
    return Plot(
        key=f"gates-{view.iteration}",
        title=f"What each kind of gate leaves of these margins (iteration {view.iteration})",
        figure=figure(traces, xaxis=_SIMILARITY, yaxis={"title": {"text": "mean margin"}}, hovermode="x unified"),
        description="Mean margin over similarity under every kind of gate at its default parameters: "
        + "; ".join(f"{name} {bins.mean:.3f} on average" for name, bins in view.by_gate.items())
        + ".",
        table=_bins_table(view.by_gate),
        note=f"Every kind of gate with its default parameters, on the same {view.what}.",
    )


def gate_panels(view: GateView) -> list[Plot]:
    """The pairs under every kind of gate, one small scatter each."""
    return [_gate_panel(view, name, position) for position, name in enumerate(view.by_gate)]


def target_plot(facts: Supervision) -> Plot:
    """Histograms of win rates and of the targets they became."""
    edges = facts.histograms.edges
    centres = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    kinds = (
        ("p_chosen", "chosen, before", series(0), None),
        ("target_chosen", "chosen, after", series(0), LIGHT["tint1"]),
        ("p_rejected", "rejected, before", series(1), None),
        ("target_rejected", "rejected, after", series(1), LIGHT["tint2"]),
    )
    traces = [
        go.Scatter(
            x=centres,
            y=facts.histograms.counts[name],
            name=label,
            mode="lines",
            line={"shape": "hvh", "color": colour, "dash": "solid" if fill else "dot", "width": 2 if fill else 1.5},
            fill="tozeroy" if fill else None,
            fillcolor=fill,
        )
        for name, label, colour, fill in kinds
    ]
    columns = [facts.histograms.counts[name] for name, *_ in kinds]
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)]
    return Plot(
        key=f"targets-{facts.iteration}",
        title=f"Iteration {facts.iteration}: targets",
        figure=figure(
            traces, xaxis={"title": {"text": "win rate"}, "range": [0, 1]}, yaxis={"title": {"text": "pairs"}}
        ),
        description=(
            "Histograms of the chosen and the rejected responses' win rates before the gate and targets after it. "
            f"After the gate they lie {facts.margin_after:.3f} apart on average, before {facts.margin_before:.3f}."
        ),
        table=Table(("win rate", *(label for _, label, *_ in kinds)), [*zip(ranges, *columns, strict=True)]),
        note="Dotted: as the oracle gives them; filled: after the gate, which draws them towards ½.",
    )


def _gate_panel(view: GateView, name: str, position: int) -> Plot:
    bins, ungated = view.by_gate[name], view.by_gate["none"]
    every = max(1, len(view.similarity) // _PANEL_POINTS)
    traces = [
        _points(view.similarity[::every], view.points_by_gate[name][::every], series(position), size=3),
        go.Scatter(x=_centres(ungated), y=ungated.means, mode="lines", line={"color": LIGHT["muted"], "dash": "dot"}),
        _bin_means(bins),
    ]
    return Plot(
        key=f"gate-{name}-{view.iteration}",
        title=f"Gate “{name}”",
        figure=figure(
            traces,
            showlegend=False,
            xaxis=_SIMILARITY,
            yaxis={"title": {"text": "margin"}, "range": [0, 1]},
            margin=_SMALL,
        ),
        description=(
            f"Margins of iteration {view.iteration}'s {view.what} under the gate {name}: {bins.mean:.3f} on average, "
            f"{ungated.mean:.3f} without a gate."
        ),
        table=_bins_table({"without a gate": ungated, f"under {name}": bins}),
        height=210,
    )


def _points(x: list[float], y: list[float], colour: str, *, size: int) -> go.Scatter:
    marker = {"size": size, "color": colour, "opacity": 0.35}
    return go.Scatter(x=x, y=y, mode="markers", marker=marker, hoverinfo="skip")


def _bin_means(bins: Bins) -> go.Scatter:
    return go.Scatter(
        x=_centres(bins),
        y=bins.means,
        mode="lines+markers",
        marker={"size": 4},
        line={"color": LIGHT["ink"], "width": 2},
        connectgaps=False,
        hovertemplate="similarity about %{x:.2f}<br>mean margin %{y:.3f}<extra></extra>",
    )


def _correlation_text(view: GateView, name: str) -> str:
    if name == "after" or view.correlation is None:
        return ""
    return f" Correlation of similarity and margin: {view.correlation:+.2f}."


def _points_note(view: GateView) -> str:
    shown = len(view.similarity)
    part = "" if shown == view.pairs else f" Points: {shown:,} of {view.pairs:,} {view.what}; the means are of all."
    return f"Line: mean of a bin.{part}"


def _centres(bins: Bins) -> list[float]:
    return [round((low + high) / 2, 4) for low, high in itertools.pairwise(bins.edges)]


def _bins_table(columns: dict[str, Bins]) -> Table:
    first = next(iter(columns.values()))
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(first.edges)]
    means = [[rounded(mean) for mean in bins.means] for bins in columns.values()]
    rows = [*zip(ranges, first.counts, *means, strict=True)]
    return Table(("similarity", "pairs", *(f"mean margin, {name}" for name in columns)), rows)
