"""What invalidates an artifact, and what does not."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from nemo_sspo.artifacts.changes import changes
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import Artifact, Draft, open_artifact, publish, refuse_changes
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.gates import CustomGate
from nemo_sspo.config.losses import CustomLoss
from nemo_sspo.config.oracles import FunctionOracle
from nemo_sspo.config.repulsions import CustomRepulsion
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.settings import recipe_settings, rounding_knobs, stage_knobs, stage_settings
from tests.stages.runs import experiment

WITHOUT_EFFECT = {"loggers": (), "checkpoint_every_steps": 7, "keep_states": 1}
KNOBS = {
    "micro_batch_size": 4,
    "packing": True,
    "pack_tokens": 7,
    "recompute": "full",
    "head_chunk_tokens": 7,
    "head": "recompute",
}


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


def test_every_setting_of_the_training_is_part_of_it_or_recorded_beside_it(tmp_path: Path) -> None:
    settings = experiment(tmp_path)
    compared, recorded = stage_settings(settings, "train"), stage_knobs(settings, "train")
    assert not compared.keys() & recorded.keys()
    assert {f"train.{name}" for name in Train.model_fields} == {
        key for key in compared | recorded if key.startswith("train.")
    }


@pytest.mark.parametrize("change", [*WITHOUT_EFFECT.items(), *KNOBS.items()], ids=lambda change: change[0])
def test_a_knob_leaves_every_artifact_current_and_is_recorded(tmp_path: Path, change: tuple[str, object]) -> None:
    name, value = change
    before, after = experiment(tmp_path), trained_with(tmp_path, **{name: value})
    for stage in STAGES:
        assert stage_settings(after, stage) == stage_settings(before, stage), stage
    assert stage_knobs(after, "train")[f"train.{name}"] == (list(value) if isinstance(value, tuple) else value)
    assert (f"train.{name}" in rounding_knobs(after)) is (name in KNOBS)


@pytest.fixture
def training() -> ModuleType:
    pytest.importorskip("nemo.collections.llm")
    return importlib.import_module("nemo_sspo.stages.training.train")


def train_context(settings: Experiment) -> StageContext:
    layout = RunLayout(settings.run_dir)
    rest = (layout, {}, Draft(layout.root), Progress(None), layout.scratch("iter_1.train"))
    return StageContext("train", 1, 0, settings, *rest)


def test_a_training_under_way_finds_its_state_again_after_such_a_change(tmp_path: Path, training: ModuleType) -> None:
    def scratch(settings: Experiment) -> Path:
        return training.scratch_of(train_context(settings))

    before = experiment(tmp_path)
    assert scratch(trained_with(tmp_path, **WITHOUT_EFFECT, **KNOBS)) == scratch(before)
    assert scratch(trained_with(tmp_path, learning_rate=1.0)) != scratch(before)
    assert scratch(experiment(tmp_path, parallel=Parallel(tensor=2))) != scratch(before)


def test_what_a_training_changes_in_its_middle_is_noted_once(
    tmp_path: Path, training: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = trained_with(tmp_path, packing=True), trained_with(tmp_path, packing=True, pack_tokens=4096)
    scratch = training.scratch_of(train_context(before))
    training.note_changes(train_context(before), scratch)
    (scratch / "step_8").mkdir()
    for _ in range(2):
        training.note_changes(train_context(after), scratch)
    line = "changed after step_8: train.pack_tokens: 8192 -> 4096"
    assert capsys.readouterr().out == f"note: {line}\n"
    assert (scratch / "notes.txt").read_text() == f"{line}\n"


def test_a_state_of_another_layout_is_set_aside_with_a_line(
    tmp_path: Path, training: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = experiment(tmp_path), experiment(tmp_path, parallel=Parallel(tensor=2))
    old, new = (training.scratch_of(train_context(each)) for each in (before, after))
    (old / "step_8").mkdir(parents=True)
    training.note_changes(train_context(after), new)
    line = (
        f"{old.name}/step_8 is the state of a training with other parallel.* or settings: it is set aside, and "
        "training begins from its first step"
    )
    assert capsys.readouterr().out == f"note: {line}\n"
    assert (new / "notes.txt").read_text() == f"{line}\n"


@pytest.mark.parametrize(
    ("part", "stages"),
    [
        ({"gate": CustomGate(function="our_rules.shapes:f")}, {"build_pairs", "diagnose"}),
        ({"loss": CustomLoss(function="our_rules.shapes:f")}, {"train"}),
        ({"repulsion": CustomRepulsion(function="our_rules.shapes:f")}, {"train"}),
        (
            {"oracle": FunctionOracle(function="our_rules.shapes:f")},
            {"score", "score_labelled", "evaluate", "select_model"},
        ),
    ],
    ids=["gate", "loss", "repulsion", "oracle"],
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
