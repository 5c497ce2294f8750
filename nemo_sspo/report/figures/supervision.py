"""Similarity against margin before and after the gate (S-SPPO Fig. 2 and 3), the gates side by side, the targets."""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.supervision import Bins, Supervision
from nemo_sspo.report.figures.base import figure, rounded
from nemo_sspo.report.theme import LIGHT, series

_BEFORE, _AFTER = series(1), series(0)
_PANEL_POINTS = 500


def scatter_plot(facts: Supervision) -> Plot:
    """Two panels that share their axes: margins as the oracle gives them, and as training sees them."""
    points, traces = facts.scatter, []
    panels = (
        ("before", points.margin_before, facts.before, _BEFORE),
        ("after", points.margin_after, facts.after, _AFTER),
    )
    for number, (name, margins, bins, colour) in enumerate(panels, start=1):
        axes = {"xaxis": f"x{number}", "yaxis": "y"}
        traces.append(
            go.Scatter(
                x=points.similarity,
                y=margins,
                mode="markers",
                marker={"size": 4, "color": colour, "opacity": 0.35},
                name=f"{name} the gate",
                showlegend=False,
                hovertemplate="similarity %{x:.3f}<br>margin %{y:.3f}<extra></extra>",
                **axes,
            )
        )
        traces.append(
            go.Scatter(
                x=_centres(bins),
                y=bins.means,
                mode="lines+markers",
                line={"color": LIGHT["ink"], "width": 2},
                name="mean of a bin",
                showlegend=False,
                connectgaps=False,
                hovertemplate="similarity about %{x:.2f}<br>mean margin %{y:.3f}<extra></extra>",
                **axes,
            )
        )
    layout = {
        "xaxis": {"domain": [0.0, 0.48], "range": [0, 1], "title": {"text": "similarity"}},
        "xaxis2": {"domain": [0.52, 1.0], "range": [0, 1], "title": {"text": "similarity"}},
        "yaxis": {"title": {"text": "margin"}, "rangemode": "tozero"},
        "annotations": [_panel_title("before the gate", 0.24), _panel_title("after the gate", 0.76)],
        "margin": {"l": 56, "r": 16, "t": 34, "b": 44},
    }
    shown = len(points.similarity)
    part = (
        "" if shown == points.pairs else f" The points are {shown:,} of {points.pairs:,} pairs; the means are of all."
    )
    correlation = facts.correlation_before
    return Plot(
        key=f"scatter-{facts.iteration}",
        title=f"Iteration {facts.iteration}: similarity of a pair against its margin",
        figure=figure(traces, **layout),
        description=(
            f"Margins of {points.pairs:,} training pairs over their semantic similarity. The mean margin falls from "
            f"{facts.margin_before:.3f} before the gate to {facts.margin_after:.3f} after it; mean similarity "
            f"{facts.similarity_mean:.3f}."
            + ("" if correlation is None else f" Correlation before the gate: {correlation:+.2f}.")
        ),
        table=_bins_table({"before the gate": facts.before, "after the gate": facts.after}),
        note=f"Margin: difference of the two responses' win rates or targets. Line: mean of a bin.{part}",
        height=340,
    )


def gate_plot(supervisions: Sequence[Supervision]) -> Plot:
    """What every gate kind would leave of the last iteration's margins."""
    facts = supervisions[-1]
    traces = [
        go.Scatter(
            x=_centres(bins),
            y=bins.means,
            mode="lines+markers",
            name=name,
            line={"color": series(position), "width": 2, "dash": ("solid", "dash", "dot")[position // 2 % 3]},
            hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>",
        )
        for position, (name, bins) in enumerate(facts.by_gate.items())
    ]
    axes = {"xaxis": {"title": {"text": "similarity"}, "range": [0, 1]}, "yaxis": {"title": {"text": "mean margin"}}}
    return Plot(
        key="gates",
        title=f"What each gate would leave of these margins (iteration {facts.iteration})",
        figure=figure(traces, **axes, hovermode="x unified"),
        description="Mean margin over similarity under every gate kind at its default parameters: "
        + "; ".join(f"{name} {_mean(bins):.3f} on average" for name, bins in facts.by_gate.items())
        + ".",
        table=_bins_table(facts.by_gate),
        note="Each gate with its default parameters, applied to the selected pairs in the form “pair”.",
    )


def gate_panels(supervisions: Sequence[Supervision]) -> list[Plot]:
    """The last iteration's pairs under every gate kind, one small scatter each."""
    facts = supervisions[-1]
    return [_gate_panel(facts, name, position) for position, name in enumerate(facts.by_gate)]


def _gate_panel(facts: Supervision, name: str, position: int) -> Plot:
    bins, ungated = facts.by_gate[name], facts.by_gate["none"]
    every = max(1, len(facts.scatter.similarity) // _PANEL_POINTS)
    traces = [
        go.Scatter(
            x=facts.scatter.similarity[::every],
            y=facts.scatter_by_gate[name][::every],
            mode="markers",
            marker={"size": 3, "color": series(position), "opacity": 0.4},
            hoverinfo="skip",
        ),
        go.Scatter(x=_centres(ungated), y=ungated.means, mode="lines", line={"color": LIGHT["muted"], "dash": "dot"}),
        go.Scatter(x=_centres(bins), y=bins.means, mode="lines", line={"color": LIGHT["ink"], "width": 2}),
    ]
    return Plot(
        key=f"gate-{name}",
        title=f"Gate “{name}”",
        figure=figure(
            traces,
            showlegend=False,
            xaxis={"title": {"text": "similarity"}, "range": [0, 1]},
            yaxis={"title": {"text": "margin"}, "range": [0, 1]},
            margin={"l": 8, "r": 8, "t": 8, "b": 40},
        ),
        description=(
            f"Margins of iteration {facts.iteration}'s pairs under the gate {name}: {_mean(bins):.3f} on average, "
            f"{_mean(ungated):.3f} without a gate."
        ),
        table=_bins_table({"without a gate": ungated, f"under {name}": bins}),
        height=210,
    )


def target_plot(facts: Supervision) -> Plot:
    """Histograms of win rates and of the targets they became."""
    edges = facts.histograms.edges
    centres = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    kinds = (
        ("p_chosen", "chosen, before", series(0), "dot"),
        ("target_chosen", "chosen, after", series(0), "solid"),
        ("p_rejected", "rejected, before", series(1), "dot"),
        ("target_rejected", "rejected, after", series(1), "solid"),
    )
    traces = [
        go.Scatter(
            x=centres,
            y=facts.histograms.counts[name],
            name=label,
            mode="lines",
            line={"shape": "hvh", "color": colour, "dash": dash, "width": 2 if dash == "solid" else 1.5},
            fill="tozeroy" if dash == "solid" else None,
            fillcolor=LIGHT["tint1"] if colour == series(0) else LIGHT["tint2"],
        )
        for name, label, colour, dash in kinds
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
            f"Histograms of the chosen and the rejected responses' win rates before the gate and targets after it. "
            f"After the gate they lie {facts.margin_after:.3f} apart on average, before {facts.margin_before:.3f}."
        ),
        table=Table(("win rate", *(label for _, label, *_ in kinds)), [*zip(ranges, *columns, strict=True)]),
        note="Dotted: as the oracle gives them; filled: after the gate, which draws them towards ½.",
    )


def _panel_title(text: str, x: float) -> dict:
    return {"text": text, "x": x, "y": 1.0, "xref": "paper", "yref": "paper", "yanchor": "bottom", "showarrow": False}


def _centres(bins: Bins) -> list[float]:
    return [round((low + high) / 2, 4) for low, high in itertools.pairwise(bins.edges)]


def _mean(bins: Bins) -> float:
    """Over all pairs."""
    total = sum(bins.counts)
    return sum(n * mean for n, mean in zip(bins.counts, bins.means, strict=True) if mean is not None) / total


def _bins_table(columns: dict[str, Bins]) -> Table:
    first = next(iter(columns.values()))
    ranges = [f"{low:.1f} to {high:.1f}" for low, high in itertools.pairwise(first.edges)]
    means = [[rounded(mean) for mean in bins.means] for bins in columns.values()]
    rows = [*zip(ranges, first.counts, *means, strict=True)]
    return Table(("similarity", "pairs", *(f"mean margin, {name}" for name in columns)), rows)
