"""A statistic over prompts with its bootstrap interval, as stages record it and the report shows it."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True)
class Interval:
    """A mean, or another statistic, and the ends of its confidence interval."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    mean: float
    low: float
    high: float

    @property
    def includes_half(self) -> bool:
        """Of a win rate: whether the interval does not separate the policies."""
        return self.low <= 0.5 <= self.high

    @property
    def of_the_other(self) -> "Interval":
        """Of a win rate: the opponent's."""
        return Interval(1 - self.mean, 1 - self.high, 1 - self.low)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"
