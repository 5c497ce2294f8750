import pytest
from pydantic import TypeAdapter, ValidationError

from nemo_sspo.artifacts.interval import Interval


def test_the_opponents_ends_change_places() -> None:
    assert Interval(0.75, 0.5, 1.0).of_the_other == Interval(0.25, 0.0, 0.5)


def test_an_interval_that_ends_at_half_separates_nobody() -> None:
    assert Interval(0.75, 0.5, 1.0).includes_half
    assert not Interval(0.75, 0.51, 1.0).includes_half
    assert not Interval(0.25, 0.0, 0.49).includes_half


def test_it_is_written_with_three_digits() -> None:
    assert str(Interval(0.76749, 0.7, 1)) == "0.767 [0.700, 1.000]"


def test_an_interval_of_selection_json_has_no_other_fields() -> None:
    with pytest.raises(ValidationError, match="unexpected"):
        TypeAdapter(Interval).validate_json('{"mean": 0.5, "low": 0.4, "high": 0.6, "median": 0.5}')
