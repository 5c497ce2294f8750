"""A judge that tells no response from another is named, with what it does instead."""

import re

import numpy as np
import pytest

from nemo_sspo.config.oracles import FunctionOracle, LlmJudgeOracle, PolicyJudgeOracle
from nemo_sspo.oracle.judge.ties import all_tie, count_ties
from nemo_sspo.oracle.protocol import Row, Turn

JUDGE = LlmJudgeOracle(model="m")


def test_a_pair_is_counted_once_and_ties_where_both_orders_agree() -> None:
    turn = (Turn("user", "q"),)
    judged = {
        Row("q", "a", "b", turn): 1.0,  # a wins in both orders
        Row("q", "b", "a"): -1.0,
        Row("q", "a", "c"): 2.0,  # the first
        Row("q", "c", "a"): 2.0,
        Row("q", "c", "b"): -0.5,  # the second
        Row("q", "b", "c"): -0.5,
        Row("p", "a", "b"): 0.0,  # neither
        Row("p", "b", "a"): 0.0,
        Row("p", "x", "x"): 0.0,  # no two responses
        Row("p", "x", "y"): 0.0,  # in one order
    }
    rows, logits = [*judged, *judged], np.array([*judged.values()] * 2, dtype=np.float32)
    assert count_ties(rows, logits) == {"compared": 4, "tied": 3, "tied_first": 1, "tied_second": 1}


@pytest.mark.parametrize(
    ("counted", "why"),
    [
        ({"tied_first": 120, "tied_second": 0}, r"\(it prefers the response shown first, whichever that is\)"),
        ({"tied_first": 0, "tied_second": 120}, r"\(it prefers the response shown second, whichever that is\)"),
        ({"tied_first": 50, "tied_second": 30}, r"\(in 50 it prefers the one shown first, in 30 the second, in 40 nei"),
        ({"answers": 240, "unparsed": 240}, r"\(none of its 240 answers names a response\); oracle\.unparsable=error"),
    ],
)
def test_why_all_of_them_tie(counted: dict[str, int], why: str) -> None:
    problem = all_tie(JUDGE, {"compared": 120, "tied": 120} | counted)
    assert problem is not None
    assert problem.startswith("oracle.model=m: a tie in each of 120 comparisons of different responses (")
    assert re.search(why, problem)
    assert "\n" not in problem


def test_one_opinion_is_enough_and_few_comparisons_are_not() -> None:
    assert all_tie(JUDGE, {"compared": 120, "tied": 119}) is None
    assert all_tie(JUDGE, {"compared": 99, "tied": 99}) is None
    assert all_tie(JUDGE, {"compared": 2, "tied": 2}, least=1) is not None
    assert all_tie(JUDGE, {}, least=0) is None  # equal responses alone
    assert all_tie(FunctionOracle(function="a:b"), {}) is None  # counts nothing
    found = all_tie(PolicyJudgeOracle(), {"compared": 100, "tied": 100})
    assert found is not None
    assert found.startswith("oracle=policy_judge: a tie in each of 100 ")
