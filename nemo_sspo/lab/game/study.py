"""The whole study: every hypothesis with its verdict, and the grid of gates behind them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.lab.game import calibration, convergence, noise
from nemo_sspo.lab.game.finding import Finding
from nemo_sspo.lab.game.noise import Row

_DIGITS = 4


@dataclass(frozen=True)
class Study:
    """What the study found."""

    seeds: int
    findings: list[Finding]
    rows: list[Row]

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it: an interval is [mean, low, high], a number has 4 digits."""
        return {
            "seeds": self.seeds,
            "findings": [
                asdict(finding) | {"measured": {name: _short(number) for name, number in finding.measured.items()}}
                for finding in self.findings
            ],
            "columns": [field.name for field in fields(Row)],
            "rows": [[_cell(getattr(row, field.name)) for field in fields(Row)] for row in self.rows],
        }


def _cell(value: Any) -> Any:
    if isinstance(value, Interval):
        return [_short(value.mean), _short(value.low), _short(value.high)]
    return value


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def study(seeds: int) -> Study:
    """Run it on `seeds` drawn games of every kind."""
    grid = noise.outcomes(seeds)
    return Study(seeds, list(_findings(seeds, grid)), noise.rows(grid))


def _findings(seeds: int, grid: noise.Outcomes) -> Iterator[Finding]:
    yield from convergence.findings(seeds)
    yield from calibration.findings(seeds)
    yield from noise.findings(seeds, grid)
