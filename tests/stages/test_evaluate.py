"""The evaluate stage on policies whose win rates are known."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.layout import EVALUATION
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages import evaluate
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle


def publish_policies(settings: Experiment, *texts: list[list[str]]) -> None:
    for iteration, responses in enumerate(texts):
        runs.publish_rollout(settings, runs.rollout_rows(responses), "rollout_held_out", iteration)


def biased(row) -> float:
    """Prefers length, whatever it is shown first by 0.7."""
    return len(row.first) - len(row.second) + 0.7


def test_win_rates_by_hand_and_blind_to_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(biased))
    settings = runs.experiment(tmp_path, iterations=2)
    base, first, second = [["a", "bb"]], [["aa", "bb"]], [["aaa", "a"]]
    publish_policies(settings, base, first, second)
    artifact = runs.run_stage(settings, "evaluate", iteration=2)
    (row,) = pq.read_table(artifact.file(EVALUATION)).to_pylist()
    assert row["win_vs_previous"] == pytest.approx(np.mean(sigmoid(np.array([1, 1, -1, -1]))))
    assert row["win_vs_base"] == pytest.approx(np.mean(sigmoid(np.array([2, 1, 0, -1]))))
    counts = artifact.manifest.counts
    assert counts["win_vs_base"] == counts["win_vs_base_low"] == counts["win_vs_base_high"] == row["win_vs_base"]
    assert (counts["new_mean_tokens"], counts["previous_mean_tokens"]) == (3.0, 3.0)  # an end token each
    assert (counts["new_distinct"], counts["prompts"]) == (1.0, 1)


def test_equal_policies_tie_and_a_better_one_wins_with_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = FormulaOracle(biased)
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: oracle)
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 4, size=(60, 2))
    base = [["x" * n for n in row] for row in lengths]
    settings = runs.experiment(tmp_path)
    publish_policies(settings, base, [["y" * (n + 2) for n in row] for row in lengths])
    counts = runs.run_stage(settings, "evaluate").manifest.counts
    assert 0.5 < counts["win_vs_base_low"] < counts["win_vs_base"] < counts["win_vs_base_high"] < 1
    assert counts["win_vs_base"] == counts["win_vs_previous"]  # in iteration 1 they are one policy

    same = runs.experiment(tmp_path / "same")
    publish_policies(same, base, base)
    counts = runs.run_stage(same, "evaluate").manifest.counts
    assert counts["win_vs_base"] == pytest.approx(0.5, abs=1e-12)
    assert counts["win_vs_base_low"] <= 0.5 <= counts["win_vs_base_high"]


def test_other_prompts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(biased))
    settings = runs.experiment(tmp_path)
    publish_policies(settings, [["a", "b"]], [["a", "b"], ["c", "d"]])
    with pytest.raises(UserError, match="the held-out prompts of the previous policy are not the new policy's"):
        runs.run_stage(settings, "evaluate")
