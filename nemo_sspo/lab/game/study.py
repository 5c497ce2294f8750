"""The whole study: every hypothesis with its verdict, and the tables behind them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nemo_sspo.lab.game import convergence
from nemo_sspo.lab.game.finding import Finding

_PARTS: tuple[Callable[[int], Iterator[Finding]], ...] = (convergence.findings,)


@dataclass(frozen=True)
class Study:
    """What the study found."""

    seeds: int
    findings: list[Finding]

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def study(seeds: int) -> Study:
    """Run it: `seeds` drawn games of every kind."""
    return Study(seeds, [finding for part in _PARTS for finding in part(seeds)])
