"""What invalidates an artifact, and what does not."""

from pathlib import Path

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import Draft
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Train
from nemo_sspo.stages.context import StageContext
from nemo_sspo.stages.registry import STAGES, recipe_settings, stage_settings
from tests.stages.runs import experiment

WITHOUT_EFFECT = {"loggers": (), "checkpoint_every_steps": 7}


def trained_with(root: Path, **changes: object) -> Experiment:
    return experiment(root, train=Train(**changes))


def test_who_is_told_and_how_often_a_state_is_saved_may_change_after_training(tmp_path: Path) -> None:
    before = experiment(tmp_path)
    for name, value in WITHOUT_EFFECT.items():
        after = trained_with(tmp_path, **{name: value})
        assert after != before
        assert recipe_settings(after) == recipe_settings(before), name
        for stage in STAGES:
            assert stage_settings(after, stage) == stage_settings(before, stage), (name, stage)


def test_every_other_setting_of_the_training_is_part_of_it(tmp_path: Path) -> None:
    assert {f"train.{name}" for name in Train.model_fields.keys() - WITHOUT_EFFECT.keys()} == {
        key for key in stage_settings(experiment(tmp_path), "train") if key.startswith("train.")
    }


def test_a_training_under_way_finds_its_state_again_after_such_a_change(tmp_path: Path) -> None:
    pytest.importorskip("nemo.collections.llm")
    from nemo_sspo.stages.train import _scratch

    def scratch(settings: Experiment) -> Path:
        layout = RunLayout(settings.run_dir)
        rest = (layout, {}, Draft(tmp_path), Progress(None), layout.scratch("iter_1.train"))
        return _scratch(StageContext("train", 1, 0, settings, *rest))

    assert scratch(trained_with(tmp_path, **WITHOUT_EFFECT)) == scratch(experiment(tmp_path))
    assert scratch(trained_with(tmp_path, head_chunk_tokens=7)) != scratch(experiment(tmp_path))
