"""What is counted of a rank. One process rehearses one rank, so there is one of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.rehearsal.memory import Memory
from tests.rehearsal.synchronisations import Synchronisations
from tests.rehearsal.traffic import Traffic
from tests.rehearsal.work import Work


@dataclass
class Counters:
    memory: Memory = field(default_factory=Memory)
    traffic: Traffic = field(default_factory=Traffic)
    waits: Synchronisations = field(default_factory=Synchronisations)
    work: Work = field(default_factory=Work)
    doubles: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes of float64 tensors that were made on the GPU inside the schedule of microbatches."""

    def start_step(self) -> None:
        self.memory.start_step()
        self.traffic.start_step()
        self.waits.start_step()
        self.work.flops.clear()
        self.doubles.clear()


counters = Counters()
