"""The stage that chooses a checkpoint, on candidates whose win rates are known."""

from pathlib import Path

import numpy as np
import pytest

from nemo_sspo.artifacts.layout import SELECTION, RunLayout
from nemo_sspo.artifacts.selection import early_stop, read_selection
from nemo_sspo.artifacts.store import is_published, publish
from nemo_sspo.artifacts.tables import CANDIDATES
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Selection
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.evaluation import select_model
from tests.some_facts import some_facts
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle


def longer_wins(row) -> float:
    """Prefers length, whatever it is shown first by 0.7."""
    return len(row.first) - len(row.second) + 0.7


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> FormulaOracle:
    judge = FormulaOracle(longer_wins)
    monkeypatch.setattr(select_model, "load_oracle", lambda *_: judge)
    return judge


def publish_iteration(settings: Experiment, iteration: int, *candidates: list[list[str]]) -> None:
    """A training of 20 steps, and what each of its candidates answers; in iteration 0 the base alone."""
    final = RunLayout(settings.run_dir).artifact("train", iteration)
    final.parent.mkdir(parents=True, exist_ok=True)
    with publish(final, stage="train", iteration=iteration, config={}, inputs={}) as draft:
        draft.facts = some_facts(steps=20)
    for number, responses in enumerate(candidates):
        runs.publish_rollout(settings, runs.rollout_rows(responses), "rollout_selection", iteration, number)


def test_the_best_is_chosen_and_both_iterations_meet_their_own_opponent(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, iterations=2, selection=Selection(candidates=2))
    publish_iteration(settings, 0, [["xx"], ["xxx"]])
    publish_iteration(settings, 1, [["xxxx"], ["xxxxxx"]], [["x"], ["xxx"]])  # the first wins
    publish_iteration(settings, 2, [["xxxx"], ["xxxx"]], [["xxxxx"], ["xxxxxx"]])

    artifact = runs.run_stage(settings, "select_model", 1)
    first = read_selection(artifact.file(SELECTION))
    assert (first.chosen, first.runner_up, first.opponent, first.prompts, first.stop) == (0, 1, 0, 2, None)
    assert [each.step for each in first.candidates] == [10, 20]
    wins = {0: sigmoid(np.array([2.0, 3.0])), 1: sigmoid(np.array([-1.0, 0.0]))}
    assert [each.win_rate.mean for each in first.candidates] == pytest.approx([w.mean() for w in wins.values()])
    assert first.difference.mean == pytest.approx(wins[0].mean() - wins[1].mean())
    assert first.difference.low > 0
    assert first.reason.startswith("Step 10 has the best win rate against the base policy, 0.917 [")
    assert first.candidates[0].mean_tokens == 6.0  # an end token each
    assert first.opponent_mean_tokens == 3.5

    by_text = {row["prompt_id"]: number for number, row in enumerate(runs.rollout_rows([["x"], ["x"]]))}
    rows = CANDIDATES.read(artifact.path).to_pylist()
    assert len(rows) == 4
    for row in rows:
        assert row["win"] == pytest.approx(wins[row["candidate"]][by_text[row["prompt_id"]]])
    of_second = {by_text[row["prompt_id"]]: row["length_difference"] for row in rows if row["candidate"] == 1}
    assert of_second == {0: -1.0, 1: 0.0}

    # Policy 1 is candidate 0, of 4 and 6 letters: what comes next is measured against that, not against the last one.
    second = read_selection(runs.run_stage(settings, "select_model", 2).file(SELECTION))
    expected = [sigmoid(np.array([0.0, -2.0])).mean(), sigmoid(np.array([1.0, 0.0])).mean()]
    assert [each.win_rate.mean for each in second.candidates] == pytest.approx(expected)
    assert (second.chosen, second.opponent) == (1, 1)
    assert "against the policy of iteration 1, " in second.reason


def test_a_run_that_does_not_win_ends_and_its_later_steps_publish_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = runs.experiment(tmp_path, iterations=3, selection=Selection(early_stop=True))
    layout = RunLayout(settings.run_dir)
    publish_iteration(settings, 0, [["xx"], ["xx"]])
    publish_iteration(settings, 1, [["xxx"], ["xxx"]])
    publish_iteration(settings, 2, [["xxx"], ["xxx"]])
    assert runs.run_stage(settings, "select_model", 1).manifest.counts["stop"] is None
    assert early_stop(layout) is None
    runs.run_stage(settings, "select_model", 2)
    stop = early_stop(layout)
    assert (stop.iteration, stop.result) == (2, 1)
    assert str(stop) == (
        "stopped after iteration 2: no candidate's interval lies above ½, the best win rate against the policy of "
        "iteration 1 is 0.500 [0.500, 0.500]; its result is the policy of iteration 1"
    )
    with pytest.raises(UserError, match="no such artifact"):
        runs.run_stage(settings, "export", 2)  # of the iteration itself everything is run: it lacks its inputs here
    capsys.readouterr()
    for stage in ("rollout", "train", "select_model"):
        with pytest.raises(UserError, match="no such artifact"):
            runs.run_stage(settings, stage, 3)  # the helper opens what was published: there is nothing
        assert capsys.readouterr().out == f"left out: the run has {stop}\n"
        assert not is_published(layout.artifact(stage, 3))


def test_other_prompts_are_refused(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, selection=Selection(candidates=2))
    publish_iteration(settings, 0, [["a"], ["b"]])
    publish_iteration(settings, 1, [["a"], ["b"]], [["a"]])
    with pytest.raises(
        UserError, match=r"candidate 1 has answered other prompts .* delete .*rollout_selection/shard_00001"
    ):
        runs.run_stage(settings, "select_model", 1)


def test_a_logit_that_is_not_finite_is_refused(tmp_path: Path, oracle: FormulaOracle) -> None:
    oracle.logit = lambda row: float("nan") if row.first == "bad" else 0.0
    settings = runs.experiment(tmp_path, selection=Selection(candidates=2))
    publish_iteration(settings, 0, [["a"], ["b"]])
    publish_iteration(settings, 1, [["a"], ["b"]], [["a"], ["bad"]])
    with pytest.raises(UserError, match="the oracle's logits are not finite"):
        runs.run_stage(settings, "select_model", 1)


def test_a_changed_selection_is_refused_by_name(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, selection=Selection(candidates=2))
    publish_iteration(settings, 0, [["a"]])
    publish_iteration(settings, 1, [["aa"]], [["a"]])
    runs.run_stage(settings, "select_model", 1)
    other = settings.model_copy(update={"selection": Selection(candidates=2, criterion="length_controlled")})
    with pytest.raises(UserError, match=r"selection.criterion: 'win_rate' -> 'length_controlled'"):
        runs.run_stage(other, "select_model", 1)


def test_another_versions_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / SELECTION).write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="not a selection of this version"):
        read_selection(tmp_path / SELECTION)
