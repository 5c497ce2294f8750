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


def test_every_file_of_a_list_counts_with_its_content(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, "run")
    files = tuple(str(tmp_path / f"{name}.jsonl") for name in "ab")
    for file in files:
        Path(file).write_text('{"prompt": "1"}\n')
    settings = experiment.model_copy(update={"prompts": files})
    before = stage_settings(settings, "prepare_prompts")
    assert before["prompts"] == list(files)
    Path(files[1]).write_text('{"prompt": "2"}\n')
    (line,) = setting_changes(before, stage_settings(settings, "prepare_prompts"))
    assert line.startswith("content of prompts[2]: ")


def test_names_of_fields_that_are_not_told_make_nothing_stale(tmp_path: Path) -> None:
    """A run that was made before there was such a setting goes on."""
    experiment = tiny_experiment(tmp_path, "run")
    for stage in ("prepare_prompts", "rollout", "score_labelled"):
        today = stage_settings(experiment, stage)
        assert "data.columns.prompt" in today
        earlier = {key: value for key, value in today.items() if not key.startswith("data.columns.")}
        assert setting_changes(earlier, today) == []
