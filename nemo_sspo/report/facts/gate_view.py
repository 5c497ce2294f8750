"""Similarity against margin (S-SPPO Fig. 2 and 3), of all response pairs where they were diagnosed, else of the pairs.

A response pair's margin is 2 |P - 1/2|; a training pair's is the difference of its responses' win rates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.diagnostics import Diagnostics, GateTable, read_diagnostics
from nemo_sspo.artifacts.layout import DIAGNOSTICS
from nemo_sspo.artifacts.tables import COMPARISONS, PAIRS
from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import GATES
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.report.facts.record import RunRecord

Array = NDArray[np.float64]

SCATTER_POINTS = 1500
_COLUMNS = ("similarity", "margin_before", "margin_after")
_BINS = 20
CONFIGURED = "configured"


@dataclass(frozen=True)
class Bins:
    """Means of a value over equal-width bins of similarity in [0, 1]."""

    edges: list[float]
    counts: list[int]
    means: list[float | None]
    """None for an empty bin."""

    @property
    def mean(self) -> float:
        """Over everything in the bins."""
        total = sum(n * mean for n, mean in zip(self.counts, self.means, strict=True) if mean is not None)
        return total / sum(self.counts)


@dataclass(frozen=True)
class GateView:
    """One iteration's margins over similarity, around its own gate and under every kind."""

    iteration: int
    what: str
    """``response pairs`` or ``training pairs``."""
    pairs: int
    similarity: list[float]
    """Of at most `SCATTER_POINTS` pairs, as are the two margins."""
    margin_before: list[float]
    margin_after: list[float]
    before: Bins
    after: Bins
    by_gate: dict[str, Bins]
    """Every kind of gate at its defaults, by name; ``none`` first."""
    points_by_gate: dict[str, list[float]]
    """The points' margins under each of them."""
    correlation: float | None
    """Pearson's, of similarity and margin before the gate."""


def diagnostics(run: RunRecord, iteration: int) -> Diagnostics | None:
    """What `diagnose` found; None before it is published, or when it cannot be read."""
    diagnosed = run.of("diagnose", iteration)
    if not diagnosed:
        return None
    return run.read(lambda: read_diagnostics(diagnosed[0].path / DIAGNOSTICS), None)


def gate_view(run: RunRecord, iteration: int, found: Diagnostics | None) -> GateView | None:
    """The view of an iteration; None before its pairs are built, or when they cannot be read."""
    stage, source = ("diagnose", COMPARISONS) if found else ("build_pairs", PAIRS)
    table = run.table(stage, iteration, source, _COLUMNS)
    if not table.num_rows:
        return None
    similarity, before, after = (table.column(name).to_numpy().astype(np.float64) for name in _COLUMNS)
    weights: dict[str, Callable] = {gate.kind: bind(gate, GATE_WEIGHTS) for gate in GATES}
    taken = _spread(len(similarity))
    if found:
        tables = {each.gate: _bins_of(each) for each in found.similarity_margin}
        by_gate = {name: tables[name] for name in weights if name in tables}
        around, correlation = (tables["none"], tables[CONFIGURED]), found.similarity_margin[0].correlation
    else:
        by_gate = {name: binned(similarity, before * weight(similarity)) for name, weight in weights.items()}
        around, correlation = (binned(similarity, before), binned(similarity, after)), _correlation(similarity, before)
    return GateView(
        iteration=iteration,
        what="response pairs" if found else "training pairs",
        pairs=found.response_pairs if found else len(similarity),
        similarity=_listed(similarity[taken]),
        margin_before=_listed(before[taken]),
        margin_after=_listed(after[taken]),
        before=around[0],
        after=around[1],
        by_gate=by_gate,
        points_by_gate={name: _listed((before * weights[name](similarity))[taken]) for name in by_gate},
        correlation=correlation,
    )


def binned(similarity: Array, values: Array, bins: int = _BINS) -> Bins:
    """Mean of `values` in each of `bins` equal-width bins of similarity; 1 falls into the last bin."""
    where = np.clip((similarity * bins).astype(int), 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    sums = np.bincount(where, weights=values, minlength=bins)
    means = [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
    return Bins(np.linspace(0.0, 1.0, bins + 1).tolist(), counts.tolist(), means)


def _bins_of(table: GateTable) -> Bins:
    edges = [table.bins[0].low, *(each.high for each in table.bins)]
    return Bins(edges, [each.count for each in table.bins], [each.mean_margin for each in table.bins])


def _spread(total: int) -> NDArray[np.intp]:
    """Evenly spaced positions: rows lie in the order of prompt ids or of a seeded sample, both without meaning."""
    return np.unique(np.linspace(0, total - 1, min(SCATTER_POINTS, total)).astype(np.intp))


def _listed(values: Array) -> list[float]:
    return np.round(values, 4).tolist()


def _correlation(first: Array, second: Array) -> float | None:
    if len(first) < 3 or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])
