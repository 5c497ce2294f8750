"""The whole study: every hypothesis with its verdict, and the grid of gates behind them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from nemo_sspo.lab.game import calibration, convergence, noise
from nemo_sspo.lab.game.noise import Row
from nemo_sspo.lab.results import Finding, row_data


@dataclass(frozen=True)
class Study:
    """What the study found."""

    seeds: int
    findings: list[Finding]
    rows: list[Row]

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it; a row is a list in the order of `columns`."""
        return {
            "seeds": self.seeds,
            "findings": [finding.as_data() for finding in self.findings],
            "columns": [field.name for field in fields(Row)],
            "rows": [list(row_data(row).values()) for row in self.rows],
        }


def study(seeds: int) -> Study:
    """Run it on `seeds` drawn games of every kind."""
    grid = noise.outcomes(seeds)
    return Study(seeds, list(_findings(seeds, grid)), noise.rows(grid))


def _findings(seeds: int, grid: noise.Outcomes) -> Iterator[Finding]:
    yield from convergence.findings(seeds)
    yield from calibration.findings(seeds)
    yield from noise.findings(seeds, grid)
