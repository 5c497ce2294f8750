"""The judge's question and what its answers mean."""

import math
from pathlib import Path

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.oracle.judge.question import cut_row, first_token_logit, parse_verdict, question, read_template
from nemo_sspo.oracle.protocol import Row


def test_texts_fill_their_places_and_nothing_else() -> None:
    """A response that spells a placeholder, or braces, must not be filled in."""
    row = Row("what is {second}?", "{first} {} {prompt}", "b")
    assert question("Q {prompt} 1 {first} 2 {second}.", row) == "Q what is {second}? 1 {first} {} {prompt} 2 b."


def test_the_packages_question_names_a_first_and_b_second() -> None:
    text = question(read_template(None), Row("PROMPT", "ONE", "TWO"))
    assert text.index("<response_A>\nONE\n</response_A>") < text.index("<response_B>\nTWO\n</response_B>")
    assert "PROMPT" in text


def test_a_template_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"oracle\.template=.*absent\.txt: cannot be read"):
        read_template(str(tmp_path / "absent.txt"))
    (tmp_path / "half.txt").write_text("{prompt} {first}")
    with pytest.raises(UserError, match=r"lacks \{second\}"):
        read_template(str(tmp_path / "half.txt"))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("A", 1),
        (" B.", -1),
        ("**A**", 1),
        ("Response B", -1),
        ("[[A]]", 1),
        ("A\nbecause it is right", 1),
        ("B - it is shorter", -1),
        ("A better answer is B", -1),
        ("A good response explains more, so none", None),
        ("Both miss the point; the better response is B.", -1),
        ("Response A is better than Response B", None),
        ("I prefer response B", -1),
        ("After some thought: Response A is vague. Verdict: **B**", -1),
        ("[[A]] at first, but finally [[B]]", -1),
        ("It's a tie", 0),
        ("tie", 0),
        ("Neither.", 0),
        ("C", 0),
        ("", None),
        ("I cannot judge this", None),
        ("About equal?", None),
        ("A's logic fails", None),
        ("Banana", None),
        ("The better response is a clear one", None),
    ],
)
def test_verdicts(answer: str, verdict: int | None) -> None:
    assert parse_verdict(answer) == verdict


def test_logit_from_log_probs_by_hand() -> None:
    assert first_token_logit({"A": math.log(0.6), "B": math.log(0.3)}) == pytest.approx(math.log(2))
    spelled = {"A": math.log(0.3), " A": math.log(0.3), "B": math.log(0.2), "the": math.log(0.1)}
    assert first_token_logit(spelled) == pytest.approx(math.log(3))
    # B is not listed: it is at most as likely as the last token that is
    assert first_token_logit({"A": math.log(0.8), "the": math.log(0.1)}) == pytest.approx(math.log(8))
    assert first_token_logit({"A": math.log(0.8), "B": -math.inf, "x": math.log(0.2)}) == pytest.approx(math.log(4))
    assert first_token_logit({"I": -0.1, "the": -3.0}) is None
    assert first_token_logit({"A": -math.inf}) is None
    assert math.isnan(first_token_logit({"A": math.nan, "B": -1.0}))


def test_cutting_keeps_the_beginning() -> None:
    assert cut_row(Row("prompt", "first", "s"), 3) == Row("pro", "fir", "s")
