"""What a rehearsed rank holds, computes, says and waits for: plain numbers, as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.rehearsal.counters import Counters
from tests.rehearsal.memory import KINDS


@dataclass(frozen=True)
class Step:
    """One optimizer step. Bytes are torch's blocks of 512."""

    peak: dict[str, int]
    """Bytes by kind when most were held."""
    live: dict[str, int]
    """Bytes by kind when the step has ended."""
    flops: dict[str, int]
    """Of products in layers and head, and of attention as if nothing were masked."""
    calls: dict[str, int]
    """Calls of a process group, by "operation group"."""
    bytes_sent: dict[str, int]
    """What the rank hands over in them."""
    waits: dict[str, int]
    """Times that the host waits for the GPU, in the schedule of microbatches."""
    waits_around: dict[str, int]
    """The same in the rest of the step."""
    doubles: int
    """Tensors of float64 made on the GPU in the schedule of microbatches."""
    largest: dict[str, Any]
    """The largest tensor that the step has made."""

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())


@dataclass(frozen=True)
class Ledger:
    """Of one rank."""

    key: str
    microbatches: int
    """Of each step."""
    before: dict[str, int]
    """Bytes by kind before the first step."""
    steps: list[Step]
    resumed: list[Step] = field(default_factory=list)
    """Steps of a second attempt, which began with a state that this one saved."""

    @property
    def peak_bytes(self) -> int:
        return max(step.peak_bytes for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Ledger:
        steps = {name: [Step(**step) for step in values.get(name, [])] for name in ("steps", "resumed")}
        return cls(**values | steps)


def by_kind(counts: Counter[Any]) -> dict[str, int]:
    return {kind: counts[kind] for kind in KINDS}


def step_of(counters: Counters) -> Step:
    """What has been counted since the step began."""
    traffic = counters.traffic
    return Step(
        peak=by_kind(counters.memory.peak),
        live=by_kind(counters.memory.live),
        flops={place: counters.work.flops[place] for place in ("layers", "head", "attention")},
        calls={" ".join(key): traffic.calls[key] for key in sorted(traffic.calls)},
        bytes_sent={" ".join(key): traffic.bytes[key] for key in sorted(traffic.calls)},
        waits=dict(sorted(counters.waits.in_microbatches.items())),
        waits_around=dict(sorted(counters.waits.around.items())),
        doubles=len(counters.doubles),
        largest=asdict(counters.memory.largest),
    )
