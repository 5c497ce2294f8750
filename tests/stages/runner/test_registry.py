"""What invalidates an artifact, and what does not."""

import re
from pathlib import Path

import pytest

from nemo_sspo.artifacts.changes import changes
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import Artifact, Draft, open_artifact, publish, refuse_changes
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Train
from nemo_sspo.config.variants import CustomGate, CustomLoss, FunctionOracle
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import STAGES, recipe_settings, stage_settings
from tests.stages.runs import experiment

WITHOUT_EFFECT = {"loggers": (), "checkpoint_every_steps": 7, "keep_states": 1}


def publish_step(settings: Experiment, name: str) -> Artifact:
    """An artifact without content, made with the settings of today."""
    (step,) = [step for step in plan(settings) if step.step_id == name]
    step.output.parent.mkdir(parents=True)
    with publish(step.output, stage=step.stage, config=stage_settings(settings, step.stage), inputs={}):
        pass
    return open_artifact(step.output)


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
    from nemo_sspo.stages.training.train import _scratch

    def scratch(settings: Experiment) -> Path:
        layout = RunLayout(settings.run_dir)
        rest = (layout, {}, Draft(tmp_path), Progress(None), layout.scratch("iter_1.train"))
        return _scratch(StageContext("train", 1, 0, settings, *rest))

    assert scratch(trained_with(tmp_path, **WITHOUT_EFFECT)) == scratch(experiment(tmp_path))
    assert scratch(trained_with(tmp_path, head_chunk_tokens=7)) != scratch(experiment(tmp_path))


@pytest.mark.parametrize(
    ("part", "stages"),
    [
        ({"gate": CustomGate(function="our_rules.shapes:f")}, {"build_pairs", "diagnose"}),
        ({"loss": CustomLoss(function="our_rules.shapes:f")}, {"train"}),
        (
            {"oracle": FunctionOracle(function="our_rules.shapes:f")},
            {"score", "score_labelled", "evaluate", "select_model"},
        ),
    ],
    ids=["gate", "loss", "oracle"],
)
def test_edited_code_behind_an_import_path_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, object], stages: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "our_rules").mkdir()
    (tmp_path / "our_rules" / "__init__.py").write_text("raise RuntimeError('a plan runs nothing of it')")
    code = tmp_path / "our_rules" / "shapes.py"
    code.write_text("def f(): return 1")
    settings, (name,) = experiment(tmp_path / "runs", **part), part
    before = {stage: stage_settings(settings, stage) for stage in STAGES}
    made = publish_step(settings, next(s.step_id for s in plan(settings) if s.stage in stages))
    assert freshness_of(settings).changed_settings(made.path) == []
    code.write_text("def f(): return 2")
    assert {stage for stage in STAGES if stage_settings(settings, stage) != before[stage]} == stages
    (line,) = freshness_of(settings).changed_settings(made.path)
    assert re.fullmatch(f"content of {name}.function: '[0-9a-f]*' -> '[0-9a-f]*'", line)
    with pytest.raises(UserError, match=f"content of {name}.function"):
        refuse_changes(made, stage_settings(settings, made.manifest.stage), {})
    code.unlink()  # and on a machine that does not have it, as a login node without the image's packages
    assert freshness_of(settings).changed_settings(made.path) == []
    assert changes(made.manifest, stage_settings(settings, made.manifest.stage), {}) == []
