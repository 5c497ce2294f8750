"""The training pairs: targets before and after the gate, similarity against margin, prompts without a pair."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import DROPPED, PAIRS, REFERENCE
from nemo_sspo.config.binding import bind
from nemo_sspo.config.describe import kind_of
from nemo_sspo.config.variants import (
    KernelGate,
    LinearGate,
    NoGate,
    PowerGate,
    SigmoidGate,
    ThresholdGate,
)
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.report.facts.record import RunRecord

Array = NDArray[np.float64]

SIMILARITY_BINS = 10
TARGET_BINS = 20
SCATTER_POINTS = 1500
GATES = (NoGate(), LinearGate(), PowerGate(), SigmoidGate(), ThresholdGate(), KernelGate())
"""Every gate of the package with its default parameters."""

_COLUMNS = ("similarity", "margin_before", "margin_after", "p_chosen", "p_rejected", "target_chosen", "target_rejected")


@dataclass(frozen=True)
class Bins:
    """Means of a value over equal-width bins of similarity in [0, 1]."""

    edges: list[float]
    counts: list[int]
    means: list[float | None]
    """None for an empty bin."""


@dataclass(frozen=True)
class Scatter:
    """At most `SCATTER_POINTS` pairs, evenly taken from all of them."""

    similarity: list[float]
    margin_before: list[float]
    margin_after: list[float]
    pairs: int
    """Of how many."""


@dataclass(frozen=True)
class Histograms:
    """Counts of targets in equal-width bins of [0, 1]."""

    edges: list[float]
    counts: dict[str, list[int]]
    """By column: p_chosen, p_rejected (before the gate), target_chosen, target_rejected (after)."""


@dataclass(frozen=True)
class Supervision:
    """One iteration's pairs."""

    iteration: int
    scatter: Scatter
    before: Bins
    after: Bins
    by_gate: dict[str, Bins]
    """What the gate kinds would leave of these pairs' margins, at their defaults and in the form ``pair``."""
    scatter_by_gate: dict[str, list[float]]
    """The same for the scatter's points: one margin each."""
    correlation_before: float | None
    """Pearson's, of similarity and margin before the gate."""
    histograms: Histograms
    similarity_mean: float
    margin_before: float
    margin_after: float
    moved_share: float | None
    """Share of pairs with a target that the gate moved by more than 0.1."""
    chosen_tokens: float | None
    rejected_tokens: float | None


def supervision(run: RunRecord, iteration: int) -> Supervision | None:
    """The pairs of an iteration; None before they are published, or when they cannot be read."""
    built = run.of("build_pairs", iteration)
    if not built:
        return None
    table = run.column(built[0].path / PAIRS, *_COLUMNS)
    if not table.num_rows:
        return None
    columns = {name: table.column(name).to_numpy().astype(np.float64) for name in _COLUMNS}
    similarity, before, after = (columns[name] for name in _COLUMNS[:3])
    gates = {kind_of(type(gate)): bind(gate, GATE_WEIGHTS, exclude={"form"}) for gate in GATES}
    scatter = _scatter(similarity, before, after)
    points = (np.array(scatter.similarity), np.array(scatter.margin_before))
    chosen_tokens, rejected_tokens = _mean_tokens(run, iteration)
    moved = run.counts("build_pairs", iteration).get("gate_moved_share")
    return Supervision(
        iteration=iteration,
        scatter=scatter,
        before=binned(similarity, before),
        after=binned(similarity, after),
        by_gate={name: binned(similarity, before * weight(similarity)) for name, weight in gates.items()},
        scatter_by_gate={name: np.round(points[1] * weight(points[0]), 4).tolist() for name, weight in gates.items()},
        correlation_before=_correlation(similarity, before),
        histograms=_histograms(columns),
        similarity_mean=float(similarity.mean()),
        margin_before=float(before.mean()),
        margin_after=float(after.mean()),
        moved_share=moved,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )


def binned(similarity: Array, values: Array, bins: int = SIMILARITY_BINS) -> Bins:
    """Mean of `values` in each of `bins` equal-width bins of similarity; 1 falls into the last bin."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip((similarity * bins).astype(int), 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    sums = np.bincount(where, weights=values, minlength=bins)
    means = [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
    return Bins(edges.tolist(), counts.tolist(), means)


def dropped_reasons(run: RunRecord, iteration: int) -> dict[str, int] | None:
    """Prompts without a pair by reason; None before the pairs are published."""
    built = run.of("build_pairs", iteration)
    if not built:
        return None
    return dict(Counter(run.column(built[0].path / DROPPED, "reason").column("reason").to_pylist()))


def _scatter(similarity: Array, before: Array, after: Array) -> Scatter:
    total = len(similarity)
    # Pairs lie in the order of their prompts' ids, which are hashes: every n-th is a fair sample.
    taken = np.unique(np.linspace(0, total - 1, min(SCATTER_POINTS, total)).astype(int))
    similarity, before, after = (np.round(values[taken], 4) for values in (similarity, before, after))
    return Scatter(similarity.tolist(), before.tolist(), after.tolist(), total)


def _histograms(columns: dict[str, Array]) -> Histograms:
    names = ("p_chosen", "p_rejected", "target_chosen", "target_rejected")
    edges = np.linspace(0.0, 1.0, TARGET_BINS + 1)
    return Histograms(
        edges.tolist(), {name: np.histogram(columns[name].clip(0, 1), bins=edges)[0].tolist() for name in names}
    )


def _correlation(first: Array, second: Array) -> float | None:
    if len(first) < 3 or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _mean_tokens(run: RunRecord, iteration: int) -> tuple[float | None, float | None]:
    reference = run.of("reference_logps", iteration)
    if not reference:
        return None, None
    table = run.column(reference[0].path / REFERENCE, "chosen_tokens", "rejected_tokens")
    if not table.num_rows:
        return None, None
    chosen, rejected = (float(table.column(name).to_numpy().mean()) for name in table.column_names)
    return chosen, rejected
