"""The settings that an artifact is tied to, as a login node and a stage see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_sspo.artifacts.changes import setting_changes
from nemo_sspo.artifacts.fingerprint import UNSEEN
from nemo_sspo.stages.runner.settings import stage_settings
from tests.launch.fake_run import tiny_experiment


@pytest.mark.parametrize("stage", ["reference_logps", "train"])
def test_the_trainer_that_auto_came_to_is_known_where_it_trains_alone(stage: str, tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, "run")
    auto, core, nemo = (
        # No override: where a test has imported NeMo, Hydra knows a group of this name.
        stage_settings(experiment.model_copy(update={"trainer": trainer}), stage)
        for trainer in ("auto", "core", "nemo")
    )
    assert (auto["trainer"], core["trainer"]) == (UNSEEN, "core")
    assert setting_changes(core, auto) == setting_changes(nemo, auto) == []
    assert setting_changes(nemo, core) == ["trainer: 'nemo' -> 'core'"]


def test_conversions_are_the_same_whatever_converts(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, "run")
    assert not {"trainer"} & {key for stage in ("import_policy", "export") for key in stage_settings(experiment, stage)}
