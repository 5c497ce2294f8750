"""The schema of selection.json, what select_model decided after a training, and whether the run goes on after it."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from nemo_sspo.artifacts.facts.evaluation import SelectionFacts
from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.published import facts_at
from nemo_sspo.artifacts.versioned_file import FilePart, VersionedFile, read_versioned

SCHEMA_VERSION = 1


class Candidate(FilePart):
    """One checkpoint of an iteration."""

    step: int
    """Optimizer steps it was trained for."""
    win_rate: Interval
    """Against the policy that the iteration started from."""
    length_controlled: Interval
    """The same at equal length."""
    mean_tokens: float
    """Of a response."""
    unfinished: int
    """Responses cut at the token limit."""


class SelectionResult(VersionedFile):
    """All of selection.json."""

    schema_version: int = SCHEMA_VERSION
    iteration: int
    opponent: int
    """The policy that the iteration started from, which every candidate met (0: the base)."""
    opponent_mean_tokens: float
    prompts: int
    confidence: float
    """Coverage of the intervals."""
    criterion: Literal["win_rate", "length_controlled"]
    candidates: list[Candidate]
    """By steps."""
    chosen: int
    """Index into `candidates`: the best by the criterion, of equals the one with the fewest steps."""
    runner_up: int | None
    """The best of the others; None where there is none."""
    difference: Interval | None
    """By how much the chosen one's criterion is above the runner-up's, prompt by prompt."""
    reason: str
    """The choice in words."""
    stop: str | None
    """Why the run ends after this iteration; None where it goes on."""

    def by_criterion(self, candidate: int) -> Interval:
        """What a candidate was judged by."""
        return getattr(self.candidates[candidate], self.criterion)


def read_selection(path: Path) -> SelectionResult:
    """Read a selection.json.

    Raises:
        UserError: it was written by another version of the schema.
    """
    return read_versioned(path, SelectionResult, "a selection")


def policy_name(policy: int) -> str:
    """A policy in a sentence."""
    return "the base policy" if policy == 0 else f"the policy of iteration {policy}"


@dataclass(frozen=True)
class EarlyStop:
    """The end of a run before its last iteration."""

    iteration: int
    """The last one; no step of a later one is run."""
    reason: str

    @property
    def result(self) -> int:
        """The policy that is the run's result: the one which that iteration started from (0: the base)."""
        return self.iteration - 1

    def leaves_out(self, iteration: int) -> bool:
        """Whether no step of an iteration is run any more."""
        return iteration > self.iteration

    def __str__(self) -> str:
        return f"stopped after iteration {self.iteration}: {self.reason}; its result is {policy_name(self.result)}"


def early_stop(layout: RunLayout) -> EarlyStop | None:
    """Where a run has ended early, from the manifests of its selections; None where it goes on.

    Raises:
        UserError: a selection's facts are not what this version writes.
    """
    for iteration in count(1):
        facts = facts_at(layout.artifact("select_model", iteration), SelectionFacts)
        if facts is None:
            return None
        if facts.stop:
            return EarlyStop(iteration, facts.stop)
    return None
