"""The training pairs: win rates before the gate, targets after it, prompts without a pair."""

from dataclasses import dataclass

import numpy as np

from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.report.facts.record import RunRecord

TARGET_BINS = 20
_HISTOGRAMS = ("p_chosen", "p_rejected", "target_chosen", "target_rejected")


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
    histograms: Histograms | None
    """None when the table cannot be read."""
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
    """The pairs of an iteration; None before they are published, or where their means are not known."""
    built = _built(run, iteration)
    if built is None or not built.pairs:
        return None
    similarity, before, after = built.similarity_mean, built.margin_before, built.margin_after
    if similarity is None or before is None or after is None:
        return None
    chosen_tokens, rejected_tokens = _mean_tokens(run, iteration)
    return Supervision(
        iteration=iteration,
        pairs=built.pairs,
        histograms=_histograms(run, iteration),
        similarity=similarity,
        margin_before=before,
        margin_after=after,
        moved_share=built.gate_moved_share,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )


def dropped_reasons(run: RunRecord, iteration: int) -> dict[str, int] | None:
    """Prompts without a pair by reason; None before the pairs are published."""
    built = _built(run, iteration)
    return None if built is None else {reason: count for reason, count in built.dropped.items() if count}


def _built(run: RunRecord, iteration: int) -> PairFacts | None:
    return next(iter(run.facts("build_pairs", iteration, PairFacts)), None)


def _histograms(run: RunRecord, iteration: int) -> Histograms | None:
    table = run.table("build_pairs", iteration, PAIRS, _HISTOGRAMS)
    if not table.num_rows:
        return None
    edges = np.linspace(0.0, 1.0, TARGET_BINS + 1)
    values = {name: table.column(name).to_numpy().astype(np.float64).clip(0, 1) for name in _HISTOGRAMS}
    counts = {name: np.histogram(column, bins=edges)[0].tolist() for name, column in values.items()}
    return Histograms(edges.tolist(), counts)


def _mean_tokens(run: RunRecord, iteration: int) -> tuple[float | None, float | None]:
    table = run.table("reference_logps", iteration, REFERENCE, ("chosen_tokens", "rejected_tokens"))
    if not table.num_rows:
        return None, None
    chosen, rejected = (float(table.column(name).to_numpy().mean()) for name in table.column_names)
    return chosen, rejected
