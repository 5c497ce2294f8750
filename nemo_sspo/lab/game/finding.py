"""A hypothesis and what came of it. The claim stands in the code; whether it held is computed, and may be no."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One hypothesis with its verdict."""

    name: str
    claim: str
    """One sentence that the measurement can contradict, with the threshold that decides."""
    source: str
    """Whose claim it is: a paper's theorem or section, or ours."""
    measured: dict[str, float]
    """The numbers that decide, and those that say how clearly."""
    held: bool
