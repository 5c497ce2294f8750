"""What a run had spent by the end of an iteration: two runs are compared only where they had the same."""

from collections.abc import Iterable
from dataclasses import dataclass

from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.facts.sampling import RolloutFacts
from nemo_sspo.artifacts.facts.training import TrainFacts
from nemo_sspo.report.facts.record import RunRecord, total

PAIRS_TOLERANCE = 0.01
"""Share by which pairs may differ: prompts without a pair are an outcome of the method, and few."""


@dataclass(frozen=True)
class Budget:
    """Sums over the iterations so far; None where an iteration does not record it."""

    prompts: int | None
    """Prompts that were sampled."""
    responses: int | None
    pairs: int | None
    """Pairs that were trained on."""
    steps: int | None
    """Optimizer steps."""

    def equals(self, other: "Budget") -> bool:
        """Whether prompts and steps are the same, and pairs but for a few that were dropped."""
        few = PAIRS_TOLERANCE * max(self.pairs or 0, other.pairs or 0)
        paired = self.pairs == other.pairs or (
            self.pairs is not None and other.pairs is not None and abs(self.pairs - other.pairs) <= few
        )
        return paired and (self.prompts, self.steps) == (other.prompts, other.steps)

    def __str__(self) -> str:
        named = (("prompts", self.prompts), ("pairs", self.pairs), ("optimizer steps", self.steps))
        return ", ".join(f"{'?' if count is None else format(count, ',')} {name}" for name, count in named)


def budget(run: RunRecord, last: int) -> Budget:
    """Budget of the iterations up to the `last`."""
    iterations = range(1, last + 1)
    sampled = [run.facts("rollout", iteration, RolloutFacts) for iteration in iterations]
    built = [run.facts("build_pairs", iteration, PairFacts) for iteration in iterations]
    trained = [run.facts("train", iteration, TrainFacts) for iteration in iterations]
    return Budget(
        prompts=_sum(total(shard.prompts for shard in shards) for shards in sampled),
        responses=_sum(total(shard.responses for shard in shards) for shards in sampled),
        pairs=_sum(total(facts.pairs for facts in found) for found in built),
        steps=_sum(total(facts.steps for facts in found) for found in trained),
    )


def _sum(iterations: Iterable[int | None]) -> int | None:
    found = list(iterations)
    return None if None in found else sum(count for count in found if count is not None)
