"""What an error prints is one line that can be read."""

from nemo_sspo.errors import UserError


def test_a_name_beyond_measure_is_shortened_and_what_to_do_is_not() -> None:
    told = str(UserError(f"policy={'a' * 6000}/end: no such directory;\ngive another path"))
    assert told.startswith("policy=aaa")
    assert told.endswith("a/end: no such directory; give another path")
    assert len(told) < 400
    assert str(UserError("a" * 400)) == "a" * 400
