"""One iteration's facts side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nemo_sspo.artifacts.selection import SelectionResult
from nemo_sspo.report.facts.evaluation import Evaluated, Sampled
from nemo_sspo.report.facts.supervision import Supervision
from nemo_sspo.report.facts.timing import StageCost
from nemo_sspo.report.facts.training import ReferenceLogps, Step1Identity, TrainingCurve


@dataclass(frozen=True)
class IterationFacts:
    """What is known of one iteration; None where nothing is published yet, or where nothing is chosen."""

    iteration: int
    sampled: Sampled | None
    pairs: Supervision | None
    dropped: dict[str, int] | None
    """Prompts without a pair by reason."""
    reference: ReferenceLogps | None
    curve: TrainingCurve | None
    identity: Step1Identity | None
    selection: SelectionResult | None
    evaluated: Evaluated | None
    costs: Sequence[StageCost]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of work by stage, in the order of the loop."""
        return {cost.stage: cost.seconds for cost in self.costs}


class _OfIteration(Protocol):
    @property
    def iteration(self) -> int: ...


_Fact = TypeVar("_Fact", bound=_OfIteration)


def of_iteration(found: Iterable[_Fact], iteration: int) -> _Fact | None:
    """The one of an iteration."""
    return next((each for each in found if each.iteration == iteration), None)
