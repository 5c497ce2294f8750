"""Choose which of an iteration's checkpoints becomes the next policy, and describe the choice.

Every candidate has met one opponent, the policy that the iteration started from, on the same prompts. The mean
decides. A paired bootstrap over the prompts measures the certainty: candidates of one training are similar, so their
difference is more precise than either win rate. Ties go to the first candidate, which moved least.

The chosen candidate's win rate is biased upwards: it is the best of several on the prompts that chose it. `evaluate`
measures it on other prompts. At t > 1 the opponent was itself chosen by its responses to these prompts, which biases
the win rates of all candidates downwards alike.

Legend: N prompts, S resamples of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.selection import Candidate
from nemo_sspo.config.stages import Selection as Settings
from nemo_sspo.stages.evaluation.bootstrap import Statistic, bootstrap, bootstrap_mean
from nemo_sspo.stages.evaluation.matches import Resampling, at_equal_length, length_controlled

_CRITERIA = {"win_rate": "win rate", "length_controlled": "win rate at equal length"}


@dataclass(frozen=True)
class CandidateMatches:
    """One checkpoint's matches with the opponent, prompt by prompt."""

    step: int
    """Optimizer steps it was trained for."""
    wins_N: NDArray[np.float64]
    """Win rate on each prompt."""
    longer_N: NDArray[np.float64]
    """By how many tokens its responses are longer than the opponent's."""
    mean_tokens: float
    unfinished: int


@dataclass(frozen=True)
class Choice:
    """The best candidate and the runner-up, by position."""

    candidates: list[Candidate]
    chosen: int
    runner_up: int | None
    difference: Interval | None
    """Of the criterion, chosen minus runner-up."""


def choose(matches: Sequence[CandidateMatches], criterion: str, how: Resampling) -> Choice:
    """Rank candidates by the mean of the criterion; ties go to the first."""
    candidates = [_described(candidate, how) for candidate in matches]
    ranking = sorted(range(len(candidates)), key=lambda index: -getattr(candidates[index], criterion).mean)
    best, *others = ranking
    if not others:
        return Choice(candidates, best, None, None)
    ours, theirs = (_statistic(matches[index], criterion) for index in (best, others[0]))
    difference = bootstrap(lambda rows_SN: ours(rows_SN) - theirs(rows_SN), len(matches[0].wins_N), **how)
    return Choice(candidates, best, others[0], difference)


def reason(choice: Choice, criterion: str, opponent: str) -> str:
    """The choice as one sentence, with the runner-up's distance and whether that is distinguishable."""
    best = choice.candidates[choice.chosen]
    figure = getattr(best, criterion)
    if choice.runner_up is None or choice.difference is None:
        return f"Step {best.step} is the only candidate; its {_CRITERIA[criterion]} against {opponent} is {figure}."
    second, behind = choice.candidates[choice.runner_up], choice.difference
    apart = "can be told apart from it" if behind.low > 0 else "cannot be told apart from it"
    return (
        f"Step {best.step} has the best {_CRITERIA[criterion]} against {opponent}, {figure}; the runner-up, step "
        f"{second.step}, is {behind} behind and {apart}."
    )


def stop_reason(choice: Choice, settings: Settings, opponent: str) -> str | None:
    """Why a run ends here; None where it goes on: a candidate's interval lies above 1/2, or nothing stops it."""
    found = [getattr(candidate, settings.criterion) for candidate in choice.candidates]
    if not settings.early_stop or any(each.low > 0.5 for each in found):
        return None
    return (
        f"no candidate's interval lies above ½, the best {_CRITERIA[settings.criterion]} against {opponent} is "
        f"{found[choice.chosen]}"
    )


def _described(candidate: CandidateMatches, how: Resampling) -> Candidate:
    return Candidate(
        step=candidate.step,
        win_rate=bootstrap_mean(candidate.wins_N, **how),
        length_controlled=length_controlled(candidate.wins_N, candidate.longer_N, how),
        mean_tokens=candidate.mean_tokens,
        unfinished=candidate.unfinished,
    )


def _statistic(candidate: CandidateMatches, criterion: str) -> Statistic:
    if criterion == "length_controlled":
        return at_equal_length(candidate.wins_N, candidate.longer_N)
    return lambda rows_SN: candidate.wins_N[rows_SN].mean(axis=1)
