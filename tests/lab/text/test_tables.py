"""Pairs, oracles and tables of the study of real text, on texts and vectors whose numbers are known."""

from dataclasses import replace

import numpy as np
import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.errors import UserError
from nemo_sspo.lab.text import oracles
from nemo_sspo.lab.text.answers import prompts_with_answers
from nemo_sspo.lab.text.measure import LARGE, PairTable
from nemo_sspo.lab.text.pairs import BEGINNING, COPY, ENDING, TWO_MODELS, TextPair, text_pairs
from nemo_sspo.lab.text.study import findings
from tests.lab.text.arena import write

WORDS = [f"w{number}" for number in range(400)]
PROMPTS = [("p", (" ".join(WORDS[:200]), "a b c d")), ("q", (" ".join(WORDS[200:]), "e f g h"))]


def test_answers_are_read_and_a_row_that_lacks_one_is_named(tmp_path):
    write(tmp_path, [("one", "two"), ("three", "four"), ("five", "six")])
    assert prompts_with_answers(tmp_path, 1) == [("Question 1?", ("three", "four"))]
    assert [answers for _, answers in prompts_with_answers(tmp_path)] == [
        ("one", "two"),
        ("three", "four"),
        ("five", "six"),
    ]
    file = tmp_path / "arena_hard_v0.1_answers_gpt-4-0314.jsonl"
    file.write_text('{"uid": "q0", "messages": []}')
    with pytest.raises(UserError, match=r"gpt-4-0314.jsonl line 1: no text at messages.-1.content.answer"):
        prompts_with_answers(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=r"gpt-4-0314.jsonl: cannot be read"):
        prompts_with_answers(tmp_path)


def test_pairs_share_what_their_kind_says():
    pairs = {(pair.kind, pair.prompt): pair for pair in text_pairs(PROMPTS, seed=0) if pair.kind != COPY}
    assert pairs[TWO_MODELS, 0][2:] == PROMPTS[0][1]
    assert pairs[TWO_MODELS, 1][2:] == PROMPTS[1][1]
    begins, ends = pairs[BEGINNING, 0].second.split(), pairs[ENDING, 0].second.split()
    assert begins == WORDS[:100] + WORDS[300:]
    assert ends == WORDS[200:300] + WORDS[100:200]
    copies = [pair for pair in text_pairs(PROMPTS, seed=0) if pair.kind == COPY]
    assert len(copies) == 2
    assert {pair.prompt for pair in text_pairs(PROMPTS * 6, seed=0) if pair.kind != TWO_MODELS} == {0, 5, 10}
    kept = copies[0].second.split()
    assert set(kept) < set(WORDS[:200])
    assert 160 < len(kept) < 200
    assert copies == [pair for pair in text_pairs(PROMPTS, seed=0) if pair.kind == COPY]
    assert copies != [pair for pair in text_pairs(PROMPTS, seed=1) if pair.kind == COPY]


def test_a_logit_is_1_at_the_median_of_the_reference():
    found = oracles.logits(np.array([1.0, -6.0]), np.array([-2.0, 1.0, 3.0]))
    assert found == pytest.approx([0.5, -3.0])
    assert oracles.length("a b c") > oracles.length("a b") > oracles.length("")


def test_sentiment_is_a_mean_over_sentences():
    pytest.importorskip(oracles.VADER)
    score = oracles.load_oracles()["sentiment"]
    assert score("I love it. I hate it.") == pytest.approx((score("I love it.") + score("I hate it.")) / 2)
    assert score("I love it.") > 0 > score("I hate it.")
    assert score("") == 0


def table(similarity: list[float], prompts: list[int] | None = None) -> PairTable:
    pairs = [TextPair(TWO_MODELS, prompts[n] if prompts else n, "", "") for n in range(len(similarity))]
    return PairTable(pairs, {"truncate": np.array(similarity)}, samples=200, seed=0)


def test_margins_before_and_after_a_gate_have_their_closed_form():
    difference = np.array([2.0, -2.0, 1.0, 8.0])
    rows = {(row.close, row.gate): row for row in table([0.95, 0.95, 0.5, 0.5]).margin_rows("length", difference)}
    before = np.tanh(np.abs(difference) / 2.0 / 2)  # in units of the median, 2
    assert rows[True, "none"].margin.mean == pytest.approx(before[:2].mean())
    assert rows[True, "linear"].margin.mean == pytest.approx(0.05 * before[:2].mean())
    assert rows[False, "power"].margin.mean == pytest.approx(0.25 * before[2:].mean())
    assert rows[False, "none"].large.mean == 0.5
    assert rows[False, "none"].pairs == 2
    assert pytest.approx(np.tanh(0.5)) == LARGE


def test_prompts_are_resampled_whole():
    """Ten pairs of one prompt are worth no more than one: all resamples are the prompt itself."""
    (row,) = table([0.1, 0.9] * 5, prompts=[0] * 10).similarity_rows()
    assert (row.similarity.low, row.similarity.high) == pytest.approx((0.5, 0.5))
    (row,) = table([0.1, 0.9] * 5).similarity_rows()
    assert row.similarity.low < 0.4 < 0.6 < row.similarity.high
    assert row.close.mean == 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_a_correlation_is_that_of_similarity_and_margin(sign):
    similarity = np.linspace(0.2, 0.8, 9)
    margin = 0.5 + 0.3 * sign * (similarity - 0.5)
    logit = 2 * np.arctanh(margin)
    (row,) = table(similarity.tolist()).correlation_rows("length", logit / np.median(logit))
    assert row.correlation.mean * sign > 0.99


def test_a_verdict_follows_the_numbers():
    similarity = np.linspace(0.5, 1.0, 400)
    kinds = (TWO_MODELS, COPY, BEGINNING, ENDING)
    pairs = [TextPair(kind, prompt, "", "") for kind in kinds for prompt in range(400)]
    ways = {how: np.tile(similarity, 4) for how in ("chunk_mean", "truncate")}
    made = PairTable(pairs, ways, samples=200, seed=0)
    flat = np.tile([1.0, 2.0, 3.0, 4.0], 400)
    falling = np.tile(np.linspace(4.0, 0.1, 400), 4)

    def verdicts(difference: np.ndarray, longer: float) -> dict[str, bool]:
        rows = made.similarity_rows(), made.margin_rows("o", difference), made.correlation_rows("o", difference)
        return {each.name: each.held for each in findings({"gpt-4-0314": longer}, *rows)}

    held, failed = verdicts(flat, 0.8), verdicts(falling, 0.7)
    for name in (
        "the window is short",
        "close pairs get large margins from o",
        "the margin of o does not follow similarity",
    ):
        assert held[name]
        assert not failed[name]
    assert not held["the gate spares pairs that are not close, o"]
    assert not held["truncation takes the beginning for the whole"]
    begins = [
        replace(row, similarity=Interval(1.0 if row.long_text == "truncate" else 0.6, 0, 1))
        if row.kind == BEGINNING
        else row
        for row in made.similarity_rows()
    ]
    after = findings({"gpt-4-0314": 0.8}, begins, [], [])
    assert {each.name: each.held for each in after}["truncation takes the beginning for the whole"]
