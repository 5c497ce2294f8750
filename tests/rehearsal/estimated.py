"""What the planner's estimate of a rank is beside the rank's ledger."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.flops import step_flops
from nemo_sspo.estimate.rank_memory import rank_memory
from nemo_sspo.estimate.traffic.traffic import expected_traffic
from tests.rehearsal.case import Case
from tests.rehearsal.ledger import Ledger

HEAD = (
    "| rank | GiB at the peak | estimate | error | weights | products | bytes sent |\n|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Errors:
    """Relative, of the second step."""

    memory: float
    """Of the peak."""
    weights: float
    products: float
    """Those of layers and head."""
    sent: float
    """Bytes of all collectives."""


def errors(case: Case, ledger: Ledger) -> Errors:
    rank, step = case.estimated, ledger.steps[1]
    flops = step_flops(rank, Batch.of(rank))
    held = rank_memory(rank)
    return Errors(
        _error(held.total, step.peak_bytes),
        _error(held.weights, step.live["weights"]),
        _error(flops.layers + flops.head, step.flops["layers"] + step.flops["head"]),
        _error(sum(expected_traffic(rank).bytes_sent.values()), sum(step.bytes_sent.values())),
    )


def row(case: Case, ledger: Ledger) -> str:
    """Of a table in Markdown."""
    found, held = errors(case, ledger), rank_memory(case.estimated)
    peak = ledger.steps[1].peak_bytes
    shares = [f"{share:+.2%}" for share in (found.memory, found.weights, found.products, found.sent)]
    return f"| {' | '.join([case.key, _gib(peak), _gib(held.total), *shares])} |\n"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def _error(estimate: float, truth: float) -> float:
    return (estimate - truth) / truth if truth else float(estimate != truth)
