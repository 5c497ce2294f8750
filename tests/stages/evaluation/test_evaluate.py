"""The evaluate stage on policies whose win rates are known."""

from pathlib import Path

import numpy as np
import pytest

from nemo_sspo.artifacts.tables import EVALUATION, MATCHUPS
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.config.stages import Rollout
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.evaluation import evaluate
from tests.stages import runs
from tests.stages.fake_oracle import FormulaJudge, FormulaOracle


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
    (row,) = EVALUATION.read(artifact.path).to_pylist()
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
    with pytest.raises(UserError, match=r"the held-out prompts of policy 0 .* are not the new policy's"):
        runs.run_stage(settings, "evaluate")


def test_every_earlier_policy_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(biased))
    settings = runs.experiment(tmp_path, iterations=4, rollout=Rollout(held_out_samples_per_prompt=1))
    # One response a prompt counts, the second of each policy is another's business (best of n).
    lengths = [(5, 2), (1, 7), (3, 3), (2, 6), (4, 5)]
    publish_policies(settings, *([["x" * n, "-" * 9] for n in pair] for pair in lengths))
    artifact = runs.run_stage(settings, "evaluate", iteration=4)
    rows = runs.rollout_rows([["x"], ["x"]])
    expected = {
        (policy, row["prompt_id"]): (float(sigmoid(np.float64(ours - theirs))), ours - theirs)
        for policy, pair in enumerate(lengths[:4])
        for row, ours, theirs in zip(rows, lengths[4], pair, strict=True)
    }
    found = MATCHUPS.read(artifact.path).to_pylist()
    assert {(row["opponent"], row["prompt_id"]) for row in found} == expected.keys()
    for row in found:
        win, longer = expected[row["opponent"], row["prompt_id"]]
        assert row["win"] == pytest.approx(win)
        assert row["length_difference"] == longer
    counts = artifact.manifest.counts
    for name, policy in {"base": 0, "iter_1": 1, "iter_2": 2, "previous": 3}.items():
        wins = [win for (opponent, _), (win, _) in expected.items() if opponent == policy]
        assert counts[f"win_vs_{name}"] == pytest.approx(np.mean(wins))
        assert counts[f"win_vs_{name}_low"] == pytest.approx(min(wins))  # of two prompts, either may be drawn twice
        assert counts[f"win_vs_{name}_high"] == pytest.approx(max(wins))
    # Against the base the new responses are 1 shorter and 3 longer, 2 either side of their mean.
    shorter, longer = np.tanh(-0.5), np.tanh(1.5)
    slope = (sigmoid(np.float64(3)) - sigmoid(np.float64(-1))) / (longer - shorter)
    assert counts["length_controlled_win_vs_base"] == pytest.approx(sigmoid(np.float64(3)) - slope * longer)
    assert counts["length_controlled_win_vs_base"] < counts["win_vs_base"]


def test_a_judge_without_an_opinion_is_named_and_gives_no_even_win_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaJudge(lambda row: 0.0))
    settings = runs.experiment(tmp_path, oracle=LlmJudgeOracle(model="m"))
    publish_policies(settings, [["a", "b"]] * 25, [["c", "d"]] * 25)
    with pytest.raises(
        UserError, match=r"^oracle\.model=m: a tie in each of 100 .* first, in 0 the second, in 100 nei"
    ):
        runs.run_stage(settings, "evaluate")
    same = runs.experiment(tmp_path / "same", oracle=LlmJudgeOracle(model="m"))
    publish_policies(same, [["a", "a"]] * 25, [["a", "a"]] * 25)  # nothing to tell apart
    assert runs.run_stage(same, "evaluate").manifest.counts["win_vs_base"] == 0.5
