"""What the stages report in which policies meet. Win rates are means over prompts, with their bootstrap intervals."""

from typing import Annotated, Literal

from nemo_sspo.artifacts.facts.base import Facts, Keys
from nemo_sspo.artifacts.facts.sampling import Judge
from nemo_sspo.artifacts.interval import Interval


class SelectionFacts(Facts):
    """Of select_model; selection.json has all of them, and more."""

    prompts: int | None
    candidates: int | None
    chosen_step: int | None
    """Optimizer steps of the chosen checkpoint."""
    last_step: int | None
    criterion: Literal["win_rate", "length_controlled"] | None
    win: Interval | None
    """Of the chosen one, by the criterion, against the policy that the iteration started from."""
    reason: str | None
    stop: str | None
    """Why the run ends after this iteration; None where it goes on."""
    judge: Judge = {}


class EvaluationFacts(Facts):
    """Of evaluate."""

    prompts: int | None
    wins: Annotated[dict[str, Interval], Keys("win_vs_{}")]
    """By opponent (`artifacts.matchups`)."""
    length_controlled_win_vs_base: Interval | None
    mean_tokens: Annotated[dict[str, float], Keys("{}_mean_tokens")]
    """Of a response, by policy: ``new``, ``previous``, ``base``; the next two likewise."""
    distinct: Annotated[dict[str, float], Keys("{}_distinct")]
    """Share of a prompt's responses that differ from each other."""
    unfinished: Annotated[dict[str, int], Keys("{}_unfinished")]
    """Responses cut at the token limit."""
    best_of_n: int | None = None
    """n, where the best of n samples was looked for."""
    best_of_n_win_vs_base: Interval | None = None
    best_of_n_mean_tokens: float | None = None
    """Of a response that was picked."""
    judge: Judge = {}
