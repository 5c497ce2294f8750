"""What oracle and encoder read of a response that reasons."""

from pathlib import Path

import numpy as np
import pytest

from nemo_sspo.config.stages import Judging
from nemo_sspo.oracle.protocol import Preferences
from nemo_sspo.stages.sampling import embed, score
from nemo_sspo.stages.sampling.judged_text import answer_of, opens_reasoning
from tests.stages import runs

TAGS = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "opened", "answer"),
    [
        ("<think>\nso\n</think>\n\nYes.", False, "Yes."),
        ("so\n</think>\nYes.", True, "Yes."),
        ("<think>a</think>b<think>c</think> d", False, "d"),
        ("<think>\nit never ends", False, ""),
        ("it never ends", True, ""),
        ("Yes, I think so.", False, "Yes, I think so."),
    ],
)
def test_the_answer_stands_behind_the_last_end(text: str, opened: bool, answer: str) -> None:
    assert answer_of(text, TAGS, opened=opened) == answer


def test_a_prompt_that_ends_inside_a_reasoning() -> None:
    assert opens_reasoning("<|user|>a<|assistant|><think>\n", TAGS)
    assert not opens_reasoning("<|user|>a<|assistant|><think>\n\n</think>\n\n", TAGS)
    assert not opens_reasoning("<|user|>a<|assistant|>", TAGS)


@pytest.mark.parametrize("reasoning", ["judged", "left_out"])
def test_oracle_and_encoder_are_given_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasoning: str
) -> None:
    """Two responses with one reasoning and opposite answers."""
    pytest.importorskip("zarr")
    judged: list[str] = []
    encoded: list[str] = []

    class Oracle:
        def compare(self, rows, on_progress) -> Preferences:
            judged.extend(row.first for row in rows)
            return Preferences(np.ones(len(rows), np.float32), np.zeros(len(rows), bool), len(rows))

    class Encoder:
        def encode(self, texts, on_progress):
            encoded.extend(texts)
            vectors = np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1))
            return embed_result(vectors)

    def embed_result(vectors):
        from nemo_sspo.encoder.protocol import Embeddings

        return Embeddings(vectors, np.zeros(len(vectors), bool), len(vectors))

    monkeypatch.setattr(score, "oracle_of", lambda *_, **__: Oracle())
    monkeypatch.setattr(embed, "load_encoder", lambda *_: Encoder())
    settings = runs.experiment(tmp_path, judging=Judging(reasoning=reasoning))
    texts = ["<think>long</think>Yes.", "<think>long</think>No."]
    runs.publish_rollout(settings, runs.rollout_rows([texts]))
    scored, embedded = (runs.run_stage(settings, stage) for stage in ("score", "embed"))
    expected = texts if reasoning == "judged" else ["Yes.", "No."]
    assert judged == encoded == expected
    for artifact in (scored, embedded):
        assert artifact.manifest.config["judging.reasoning"] == reasoning
