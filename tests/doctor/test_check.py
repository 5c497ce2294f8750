"""A verdict follows from the figure, and the exit code from the verdicts."""

import math

import pytest

from nemo_sspo.doctor.check import Check, at_most, exit_code, not_run

GOOD, BAD, ABSENT = Check("a", "passed"), Check("b", "failed"), not_run("c", "why")


@pytest.mark.parametrize(
    ("measured", "verdict"), [(0.1, "passed"), (0.2, "passed"), (0.3, "failed"), (math.inf, "failed")]
)
def test_at_most(measured, verdict):
    assert at_most("name", measured, 0.2).verdict == verdict


def test_what_is_no_number_fails():
    assert at_most("name", math.nan, 0.2).verdict == "failed"


@pytest.mark.parametrize(
    ("checks", "code"), [([GOOD], 0), ([GOOD, ABSENT], 2), ([ABSENT, BAD, GOOD], 1), ([BAD], 1), ([], 0)]
)
def test_exit_code(checks, code):
    assert exit_code(checks) == code
