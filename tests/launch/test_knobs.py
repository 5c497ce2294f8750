"""A run whose first iteration is published goes on with knobs that fit its machine better."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.published import PublishedStep, published_steps
from nemo_sspo.artifacts.store import Draft, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.run_directory import bind
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.report.facts.record import read_run
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.run_page import run_page
from nemo_sspo.report.summary import summary
from nemo_sspo.stages.__main__ import run_step
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import stage_inputs
from nemo_sspo.stages.runner.settings import knob_names
from tests.launch import fake_stages
from tests.launch.fake_run import drive, tiny_experiment
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import calls

PACKED = ("train.packing=true", "train.pack_tokens=8192")
REMEDIES = [
    ("train", "train.pack_tokens=4096"),
    ("train", "train.packing=false"),
    ("train", "train.recompute=selective"),
    ("train", "train.recompute=full"),
    ("train", "train.micro_batch_size=1"),
    ("train", "parallel=tp2"),
    ("train", "parallel.tensor=4"),
    ("rollout", "engine.gpu_memory_utilization=0.7"),
    ("rollout", "engine.tensor_parallel=2"),
    ("rollout", "engine.max_num_seqs=16"),
    ("score", "oracle.batch_tokens=1024"),
    ("embed", "encoder.batch_size=8"),
]
"""What docs/running.md says to change after out of memory, and the stage that it helps."""
WITHOUT_EFFECT = [("train", "train.checkpoint_every_steps=5"), ("train", "train.loggers=[]")]


def first_iteration(experiment: Experiment) -> None:
    publish_steps(experiment, *(step.step_id for step in plan(experiment) if step.iteration < 2))


def of(layout: RunLayout, name: str) -> Manifest:
    (step,) = [step for step in published_steps(layout) if step.step_id == name]
    return step.manifest


@pytest.mark.parametrize(("stage", "remedy"), [*REMEDIES, *WITHOUT_EFFECT], ids=lambda value: value)
def test_the_second_iteration_goes_on_with_another_knob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, remedy: str
) -> None:
    before = tiny_experiment(tmp_path, "run", *PACKED, "iterations=2")
    layout, sharded = RunLayout(before.run_dir), ".00000" if stage in ("rollout", "score", "embed") else ""
    layout.root.mkdir()
    bind(before, layout)
    first_iteration(before)
    publish_steps(before, *plan_before(before, f"iter_2.{stage}{sharded}"))

    after = tiny_experiment(tmp_path, "run", *PACKED, "iterations=2", remedy)
    changed = changes(before, after)
    assert {line.partition(":")[0] for line in bind(after, layout)} == changed.keys() != set()
    assert all(freshness_of(after).standing(step.path) == "current" for step in published_steps(layout))
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(run=fake_stages.run))
    run_step(layout.root, stage, 2, 0, attempt="test")

    manifest = of(layout, f"iter_2.{stage}{sharded}")
    assert {key: manifest.knobs[key] for key in changed} == changed
    assert not changed.keys() & manifest.config.keys()
    assert (changed.keys() <= set(manifest.rounding)) is ((stage, remedy) in REMEDIES)


def test_only_what_is_missing_is_made_with_other_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    before = tiny_experiment(tmp_path, "run", *PACKED, "iterations=2")
    layout = RunLayout(before.run_dir)
    layout.root.mkdir()
    bind(before, layout)
    first_iteration(before)
    publish_steps(before, "iter_2.reference_logps")
    kept = {step.step_id: step.manifest for step in published_steps(layout)}
    after = tiny_experiment(tmp_path, "run", "iterations=2", "train.recompute=full", "engine.max_num_seqs=8")
    assert sorted(drive(after).of("started")) == sorted({step.step_id for step in plan(after)} - kept.keys())
    assert {step.step_id: step.manifest for step in published_steps(layout) if step.step_id in kept} == kept


def plan_before(experiment: Experiment, name: str) -> tuple[str, ...]:
    """The steps that a step reads."""
    return next(step.depends_on for step in plan(experiment) if step.step_id == name)


def changes(before: Experiment, after: Experiment) -> dict[str, object]:
    """The settings that are others, with their new values."""

    def flat(value: object, key: str) -> dict[str, object]:
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{key}.{name}".strip(".")).items()}

    old, new = (flat(each.model_dump(mode="json"), "") for each in (before, after))
    return {key: value for key, value in new.items() if old[key] != value}


def test_another_setting_is_still_refused(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    bind(tiny_experiment(tmp_path, "run"), layout)
    publish_steps(tiny_experiment(tmp_path, "run"), "iter_1.train")
    with pytest.raises(UserError, match=r"train\.learning_rate: 0\.0005 -> 1\.0"):
        bind(tiny_experiment(tmp_path, "run", "train.learning_rate=1", "train.recompute=full"), layout)


def test_what_was_changed_when_stands_in_summary_and_report(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    before = tiny_experiment(tmp_path, "run", *PACKED, "iterations=2")
    layout.root.mkdir()
    bind(before, layout)
    first_iteration(before)
    assert summary(gather(read_run(layout)))["changed"] == []
    after = tiny_experiment(tmp_path, "run", *PACKED, "iterations=2", "train.pack_tokens=4096", "train.loggers=[]")
    publish_steps(after, "iter_2.train")
    lines = [
        "train.loggers: ['tensorboard'] -> [] from iteration 2 (train) on",
        "train.pack_tokens: 8192 -> 4096 from iteration 2 (reference_logps, train) on (changes rounding)",
    ]
    assert summary(gather(read_run(layout)))["changed"] == lines
    bind(after, layout)
    (section,) = [section for section in run_page(gather(read_run(layout))).sections if section.key == "configuration"]
    assert section.blocks[0].text == f"Changed in the run: {'; '.join(lines)}."


def test_a_run_on_slurm_is_submitted_again_with_another_knob(slurm, tmp_path: Path) -> None:
    slurm = [*slurm, "iterations=2", "rollout.shards=1"]
    assert cli.main(["submit", *slurm]) == 0
    first_iteration(load_experiment(slurm))
    (tmp_path / "calls").unlink()
    assert cli.main(["submit", *slurm, "train.recompute=full", "engine.max_num_seqs=8"]) == 0
    iterations = {name.partition(".")[0] for name in calls(tmp_path)}
    assert iterations == {"iter_2", "report"}


@pytest.fixture
def earlier(tmp_path: Path) -> RunLayout:
    """The first iteration of a run of the release whose manifests had knobs among their settings."""
    files = json.loads(Path(__file__).with_name("earlier_run.json").read_text())
    for name, content in files.items():
        path = tmp_path / "earlier" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return RunLayout(tmp_path / "earlier")


@pytest.mark.parametrize("remedy", [(), ("train.micro_batch_size=1", "engine.max_num_seqs=16", "parallel=tp2")])
def test_a_run_of_the_earlier_layout_goes_on(earlier: RunLayout, remedy: tuple[str, ...]) -> None:
    experiment = load_experiment(
        [
            *("experiment=quickstart", "iterations=2", "policy=org/policy", "prompts=org/prompts"),
            *("data.held_out_prompts=null", "oracle.path=org/oracle", "name=earlier"),
            *(f"runs_dir='{earlier.root.parent}'", *remedy),
        ]
    )
    steps: list[PublishedStep] = published_steps(earlier)
    assert [step.step_id for step in steps] == [step.step_id for step in plan(experiment) if step.iteration < 2]
    assert of(earlier, "iter_1.train").config.keys() & knob_names(experiment)
    earlier.experiment.write_text(experiment.model_dump_json())
    bind(experiment, earlier)
    publish_steps(experiment, "iter_2.train")
    changed = {line.partition(":")[0] for line in summary(gather(read_run(earlier)))["changed"]}
    expected = {"train.micro_batch_size", "engine.max_num_seqs", "parallel.pipeline", "parallel.sequence"}
    assert changed == (expected if remedy else set())


def test_the_model_card_is_made_from_every_step_that_the_policy_depends_on(tmp_path: Path) -> None:
    pytest.importorskip("nemo.collections.llm")
    from nemo_sspo.stages.training.export import made_by

    experiment = tiny_experiment(tmp_path, "run", "iterations=2", "rollout.shards=2")
    publish_steps(experiment, "iter_2.export")
    layout, steps = RunLayout(experiment.run_dir), {step.step_id: step for step in plan(experiment)}
    paths = stage_inputs("export", experiment, layout, 2, 0)
    inputs = {name: [open_artifact(path) for path in group] for name, group in paths.items()}
    context = StageContext(
        "export", 2, 0, experiment, layout, inputs, Draft(tmp_path), Progress(None), layout.scratch("iter_2.export")
    )
    ancestors, waiting = set(), ["iter_2.export"]
    while waiting:
        ancestors |= {*(parents := steps[waiting.pop()].depends_on)}
        waiting += parents
    assert sorted(manifest.stage for manifest in made_by(context)) == sorted(steps[name].stage for name in ancestors)
