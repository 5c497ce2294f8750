"""The training pairs: win rates before the gate, targets after it, prompts without a pair."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.tables import DROPPED, PAIRS, REFERENCE
from nemo_sspo.report.facts.record import RunRecord

TARGET_BINS = 20
_HISTOGRAMS = ("p_chosen", "p_rejected", "target_chosen", "target_rejected")
_MEANS = ("similarity", "margin_before", "margin_after")


@dataclass(frozen=True)
class Histograms:
    """Counts of targets in equal-width bins of [0, 1]."""

    edges: list[float]
    counts: dict[str, list[int]]
    """By column: p_chosen, p_rejected (before the gate), target_chosen, target_rejected (after)."""


@dataclass(frozen=True)
class Supervision:
    """One iteration's training pairs."""

    iteration: int
    pairs: int
    histograms: Histograms
    similarity: float
    """Mean similarity of a pair."""
    margin_before: float
    """Mean difference of a pair's win rates."""
    margin_after: float
    """Mean difference of a pair's targets."""
    moved_share: float | None
    """Share of pairs with a target that the gate moved by more than 0.1."""
    chosen_tokens: float | None
    rejected_tokens: float | None


def supervision(run: RunRecord, iteration: int) -> Supervision | None:
    """The pairs of an iteration; None before they are published, or when they cannot be read."""
    table = run.table("build_pairs", iteration, PAIRS, (*_MEANS, *_HISTOGRAMS))
    if not table.num_rows:
        return None
    columns = {name: table.column(name).to_numpy().astype(np.float64) for name in table.column_names}
    similarity, before, after = (float(columns[name].mean()) for name in _MEANS)
    chosen_tokens, rejected_tokens = _mean_tokens(run, iteration)
    return Supervision(
        iteration=iteration,
        pairs=table.num_rows,
        histograms=_histograms(columns),
        similarity=similarity,
        margin_before=before,
        margin_after=after,
        moved_share=next((each.gate_moved_share for each in run.facts("build_pairs", iteration, PairFacts)), None),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )


def dropped_reasons(run: RunRecord, iteration: int) -> dict[str, int] | None:
    """Prompts without a pair by reason, the most frequent first; None before the pairs are published."""
    if not run.of("build_pairs", iteration):
        return None
    found = run.table("build_pairs", iteration, DROPPED, ["reason"])["reason"].to_pylist()
    return dict(Counter(found).most_common())


def _histograms(columns: dict[str, NDArray[np.float64]]) -> Histograms:
    edges = np.linspace(0.0, 1.0, TARGET_BINS + 1)
    counts = {name: np.histogram(columns[name].clip(0, 1), bins=edges)[0].tolist() for name in _HISTOGRAMS}
    return Histograms(edges.tolist(), counts)


def _mean_tokens(run: RunRecord, iteration: int) -> tuple[float | None, float | None]:
    table = run.table("reference_logps", iteration, REFERENCE, ("chosen_tokens", "rejected_tokens"))
    if not table.num_rows:
        return None, None
    chosen, rejected = (float(table.column(name).to_numpy().mean()) for name in table.column_names)
    return chosen, rejected
