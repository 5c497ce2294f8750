"""The score stage: which rows it asks for, where it puts the answers, what it counts and refuses."""

from pathlib import Path

import pytest

from nemo_sspo.artifacts.facts.sampling import ScoreFacts
from nemo_sspo.artifacts.tables import SCORES
from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.stages.sampling import judging
from tests.stages import runs
from tests.stages.fake_oracle import FormulaJudge, FormulaOracle

TEXTS = [["a", "bb", "cccccc"], ["dddd", "e", "e"], ["f", "gg", "hhh"]]


def biased(row) -> float:
    """Prefers length, and the place shown first by 0.25."""
    return len(row.first) - len(row.second) + 0.25


def test_logits_lie_at_first_and_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = FormulaOracle(biased)
    monkeypatch.setattr(judging, "load_oracle", lambda *_: oracle)
    many = TEXTS * 400  # two windows
    settings, rows = runs.experiment(tmp_path), runs.rollout_rows(many)
    runs.publish_rollout(settings, rows)
    artifact = runs.run_stage(settings, "score")
    scored = SCORES.read(artifact.path).to_pylist()

    assert [row["prompt_id"] for row in scored] == [row["prompt_id"] for row in rows]
    for row, texts in zip(scored, many, strict=True):
        assert row["logits"] == [
            [0.0 if i == j else len(a) - len(b) + 0.25 for j, b in enumerate(texts)] for i, a in enumerate(texts)
        ]
    assert [row["response_ids"] for row in scored] == [[r["response_id"] for r in row["responses"]] for row in rows]
    assert [row["truncated_rows"] for row in scored] == [2, 0, 0] * 400
    counts = artifact.manifest.counts
    assert counts["order_bias"] == pytest.approx(0.5)  # |l_ij + l_ji| = 2 x 0.25
    assert (counts["prompts"], counts["rows"], counts["truncated_rows"]) == (1200, 7200, 800)
    assert counts["unique_rows"] == 400 * (6 + 3 + 6)  # prompt 1: (d, e) and (e, d) twice each, (e, e) twice
    assert {row.prompt for row in oracle.asked} == set(map(str, range(1200)))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_names_its_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    oracle = FormulaOracle(lambda row: broken if "gg" in row else 1.0)
    monkeypatch.setattr(judging, "load_oracle", lambda *_: oracle)
    settings, rows = runs.experiment(tmp_path), runs.rollout_rows(TEXTS)
    runs.publish_rollout(settings, rows)
    with pytest.raises(UserError, match=f"prompt {rows[2]['prompt_id']}: the oracle's logits are not finite"):
        runs.run_stage(settings, "score")


def test_a_judge_that_sees_the_place_alone_stops_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "load_oracle", lambda *_: FormulaJudge(lambda row: 3.0))
    settings = runs.experiment(tmp_path, oracle=LlmJudgeOracle(model="m"))
    runs.publish_rollout(settings, runs.rollout_rows([["a", "bb", "cccccc"]] * 34))
    with pytest.raises(
        UserError, match=r"^oracle\.model=m: a tie in each of 102 comparisons .* shown first, whichever"
    ):
        runs.run_stage(settings, "score")
    few = runs.experiment(tmp_path / "few", oracle=LlmJudgeOracle(model="m"))
    runs.publish_rollout(few, runs.rollout_rows(TEXTS))
    assert runs.run_stage(few, "score").facts(ScoreFacts).judge == {
        "compared": 7,  # the second prompt has a response twice
        "tied": 7,
        "tied_first": 7,
        "tied_second": 0,
    }
