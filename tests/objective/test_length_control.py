"""The win rate at equal length against data whose length effect is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nemo_sspo.objective.length_control import bounded_difference, win_at_equal_length


def controlled(wins, longer) -> float:
    wins, longer = np.asarray(wins, dtype=float), np.asarray(longer, dtype=float)
    return win_at_equal_length(wins[None], bounded_difference(longer)[None]).item()


def test_by_hand() -> None:
    """Differences -1, 1, 3 around 1: slope (0.9 - 0.5) / 4, so 0.7 at 1 is 0.6 at 0."""
    found = win_at_equal_length(np.array([[0.5, 0.7, 0.9]]), np.array([[-1.0, 1.0, 3.0]]))
    assert found == pytest.approx([0.6])


def test_a_win_that_is_all_length_is_a_tie() -> None:
    longer = np.random.default_rng(0).normal(8.0, 10.0, size=500)
    wins = 0.5 + 0.4 * np.tanh(longer / longer.std())
    assert wins.mean() > 0.65
    assert controlled(wins, longer) == pytest.approx(0.5, abs=1e-12)


def test_a_win_that_length_has_no_part_in_stays() -> None:
    generator = np.random.default_rng(1)
    longer, wins = generator.normal(8.0, 10.0, size=20_000), generator.beta(3, 2, size=20_000)
    assert controlled(wins, longer) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("longer", [[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
def test_one_difference_tells_nothing_of_its_part(longer) -> None:
    assert controlled([0.2, 0.4, 0.9], longer) == pytest.approx(0.5)


LENGTHS = arrays(float, 12, elements=st.integers(-500, 500).map(float))
WINS = arrays(float, 12, elements=st.floats(0, 1))


@given(WINS, LENGTHS)
def test_the_opponents_is_what_it_leaves(wins, longer) -> None:
    ours, theirs = controlled(wins, longer), controlled(1 - wins, -longer)
    assert 0 <= ours <= 1
    assert ours + theirs == pytest.approx(1, abs=1e-7)


@given(WINS, LENGTHS, st.floats(0.01, 100))
def test_the_unit_of_length_does_not_matter(wins, longer, unit) -> None:
    assert controlled(wins, unit * longer) == pytest.approx(controlled(wins, longer), abs=1e-6)


def test_resamples_are_fitted_one_by_one() -> None:
    generator = np.random.default_rng(3)
    wins, difference = generator.random((4, 9)), generator.normal(size=(4, 9))
    together = win_at_equal_length(wins, difference)
    fitted = [np.polyfit(x, y, 1)[1] for x, y in zip(difference, wins, strict=True)]
    assert together == pytest.approx(np.clip(fitted, 0, 1))
