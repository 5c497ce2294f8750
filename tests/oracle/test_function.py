"""A function of the user's: found by its path, given its arguments, and checked in what it returns."""

import pytest

from nemo_sspo.config.oracles import FunctionOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import Row
from nemo_sspo.oracle.registry import load_oracle

HERE = "tests.oracle.function_oracle"
ROWS = [Row("q", "four", "a"), Row("q", "a", "four"), Row("q", "four", "a")]


def test_arguments_reach_the_function_and_equal_rows_are_given_once() -> None:
    done: list[int] = []
    oracle = load_oracle(FunctionOracle(function=f"{HERE}:prefers_length", arguments={"weight": 10}))
    preferences = oracle.compare(ROWS, done.append)
    assert preferences.logits_R.tolist() == pytest.approx([0.31, -0.29, 0.31])
    assert (preferences.unique_rows, done) == (2, [3])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package:f", "oracle.function=no_such_package:f: cannot be imported"),
        (f"{HERE}:absent", "cannot be imported"),
        (f"{HERE}:HERE", "cannot be imported"),
        ("json:__name__", "not a function"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_oracle(FunctionOracle(function=path))


def test_what_it_returns_is_checked() -> None:
    with pytest.raises(UserError, match=r"returned logits of shape \(1,\) for 2 rows; return one number per row"):
        load_oracle(FunctionOracle(function=f"{HERE}:one_too_few")).compare(ROWS)
    with pytest.raises(UserError, match="returned no sequence of numbers"):
        load_oracle(FunctionOracle(function=f"{HERE}:no_numbers")).compare(ROWS)
