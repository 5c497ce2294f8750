"""An oracle against known outcomes, and what the diagnostics say of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from nemo_sspo.artifacts.tables import LABELLED
from nemo_sspo.config.stages import Evaluation
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.pairs import score_labelled
from nemo_sspo.stages.pairs.score_labelled import calibration_of
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle


def write(path: Path, *records: dict) -> str:
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def record(first: str, second: str, label: float) -> dict:
    return {"prompt": "q", "response_a": first, "response_b": second, "label": label}


def test_probabilities_are_blind_to_order_and_calibration_is_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle prefers length by a logit a character, and the place shown first by 0.7."""
    oracle = FormulaOracle(lambda row: len(row.first) - len(row.second) + 0.7)
    monkeypatch.setattr(score_labelled, "load_oracle", lambda settings, resources=None: oracle)
    source = write(tmp_path / "l.jsonl", record("abc", "a", 1), record("a", "abc", 1), record("ab", "a", 0.25))
    settings = runs.experiment(tmp_path, evaluation=Evaluation(labelled_pairs=source))
    artifact = runs.run_stage(settings, "score_labelled", 0)
    labelled = LABELLED.read(artifact.path)
    two, one = sigmoid(np.array(2.0)), sigmoid(np.array(1.0))
    assert labelled["p_first"].to_pylist() == pytest.approx([two, 1 - two, one])

    found = calibration_of(labelled)
    assert found.accuracy == pytest.approx((1 + 0 + 0.25) / 3)
    assert found.brier_score == pytest.approx(((1 - two) ** 2 + two**2 + (one - 0.25) ** 2) / 3)
    assert [part.count for part in found.bins if part.count] == [1, 2]
    assert found.expected_calibration_error == pytest.approx((one - 0.25 + 2 * (two - 0.5)) / 3)

    steps = {step.step_id: step for step in plan(settings)}
    assert "iter_0.score_labelled" in steps["iter_1.diagnose"].depends_on
    assert "iter_0.score_labelled" not in {step.step_id for step in plan(runs.experiment(tmp_path))}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (record("a", "b", 1.5), "`label` is 1.5"),
        (record("a", "b", True), "`label` is True"),
        ({"prompt": "q", "response_a": "a", "label": 1}, "`response_a` and `response_b`"),
    ],
)
def test_a_bad_comparison_is_named(tmp_path: Path, broken: dict, message: str) -> None:
    source = write(tmp_path / "l.jsonl", record("a", "b", 1), broken)
    settings = runs.experiment(tmp_path, evaluation=Evaluation(labelled_pairs=source))
    with pytest.raises(UserError, match=rf"l\.jsonl line 2: {message}"):
        runs.run_stage(settings, "score_labelled", 0)
