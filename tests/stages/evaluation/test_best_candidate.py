"""Which checkpoint is chosen, by numbers worked out by hand."""

import numpy as np
import pytest

from nemo_sspo.config.stages import Selection
from nemo_sspo.stages.evaluation.best_candidate import CandidateMatches, choose, reason, stop_reason

HOW = {"samples": 500, "confidence": 0.95, "seed": 0}


def candidate(step: int, *wins: float, longer: tuple[float, ...] | None = None) -> CandidateMatches:
    return CandidateMatches(step, np.array(wins), np.array(longer or [0.0] * len(wins)), mean_tokens=20.0, unfinished=0)


def test_the_highest_mean_is_chosen_and_the_next_is_the_runner_up() -> None:
    choice = choose([candidate(10, 0.4, 0.6), candidate(20, 0.8, 0.6), candidate(30, 0.6, 0.6)], "win_rate", HOW)
    assert (choice.chosen, choice.runner_up) == (1, 2)
    assert [each.win_rate.mean for each in choice.candidates] == pytest.approx([0.5, 0.7, 0.6])
    # Prompt by prompt it is 0.2 and 0.0 better: of two prompts, a resample has either twice or both.
    assert (choice.difference.mean, choice.difference.low, choice.difference.high) == pytest.approx((0.1, 0.0, 0.2))


def test_of_equal_ones_the_earliest_is_chosen() -> None:
    choice = choose([candidate(10, 0.2, 0.4), candidate(20, 0.7, 0.5), candidate(30, 0.5, 0.7)], "win_rate", HOW)
    assert (choice.chosen, choice.runner_up) == (1, 2)
    assert choice.difference.mean == 0.0


def test_what_differs_by_the_same_on_every_prompt_is_told_apart_though_the_intervals_overlap() -> None:
    wins = np.linspace(0.1, 0.8, 40)
    choice = choose([candidate(10, *wins), candidate(20, *(wins + 0.01))], "win_rate", HOW)
    first, second = (each.win_rate for each in choice.candidates)
    assert first.high > second.low
    assert (choice.difference.low, choice.difference.high) == pytest.approx((0.01, 0.01))
    assert reason(choice, "win_rate", "the base policy") == (
        f"Step 20 has the best win rate against the base policy, {second}; the runner-up, step 10, is "
        "0.010 [0.010, 0.010] behind and can be told apart from it."
    )


def test_at_equal_length_another_one_may_be_the_best() -> None:
    """The first wins by length alone: its line is 1/2 at no difference. The second wins 0.6 whatever its length."""
    longer = (4.0, 4.0, 4.0, 0.0)
    by_length = 0.5 + 0.4 * np.tanh(np.array(longer) / np.std(longer))
    matches = [candidate(10, *by_length, longer=longer), candidate(20, 0.6, 0.6, 0.6, 0.6, longer=longer)]
    assert choose(matches, "win_rate", HOW).chosen == 0
    choice = choose(matches, "length_controlled", HOW)
    assert choice.chosen == 1
    assert [each.length_controlled.mean for each in choice.candidates] == pytest.approx([0.5, 0.6])
    assert choice.difference.mean == pytest.approx(0.1)
    assert "best win rate at equal length against it, 0.600 [0.600, 0.600]" in reason(choice, "length_controlled", "it")


def test_a_close_race_is_told_as_one() -> None:
    choice = choose([candidate(10, 0.9, 0.1, 0.6), candidate(20, 0.1, 0.9, 0.5)], "win_rate", HOW)
    assert choice.difference.low < 0 < choice.difference.mean
    assert reason(choice, "win_rate", "it").endswith("behind and cannot be told apart from it.")


def test_one_candidate_needs_no_runner_up() -> None:
    choice = choose([candidate(10, 0.7, 0.7)], "win_rate", HOW)
    assert (choice.chosen, choice.runner_up, choice.difference) == (0, None, None)
    expected = "Step 10 is the only candidate; its win rate against the base policy is 0.700 [0.700, 0.700]."
    assert reason(choice, "win_rate", "the base policy") == expected


@pytest.mark.parametrize(
    ("wins", "stops"),
    [((0.5, 0.5), True), ((0.51, 0.52), False), ((0.9, 0.4), True), ((0.2, 0.3), True)],
    ids=["a draw", "a sure win", "a win on average", "a loss"],
)
def test_a_run_ends_where_no_interval_lies_above_one_half(wins: tuple[float, float], stops: bool) -> None:
    choice = choose([candidate(10, 0.1, 0.1), candidate(20, *wins)], "win_rate", HOW)
    found = stop_reason(choice, Selection(early_stop=True), "the base policy")
    assert (found is not None) == stops
    assert found is None or found.endswith(
        f"the best win rate against the base policy is {choice.candidates[1].win_rate}"
    )
    assert stop_reason(choice, Selection(candidates=2), "the base policy") is None


def test_a_candidate_that_is_not_the_best_may_keep_a_run_going() -> None:
    """Its interval lies above 1/2, the better one's does not."""
    choice = choose([candidate(10, 0.51, 0.51), candidate(20, 0.9, 0.4)], "win_rate", HOW)
    assert choice.chosen == 1
    assert stop_reason(choice, Selection(early_stop=True), "it") is None
