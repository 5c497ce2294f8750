"""Nothing stale: what a change invalidates is refused, listed, and made anew by one command, here and on Slurm."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published, publish
from nemo_sspo.config.load import change_experiment, load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch import preflight
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.redo import invalidated, set_aside
from nemo_sspo.launch.run_directory import bind
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.submit import missing_parts
from nemo_sspo.launch.stale import freshness_of, refuse_stale, stale_steps
from nemo_sspo.stages.runner.settings import stage_settings
from tests.launch.fake_run import digests, drive, fake_command, tiny_experiment
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import calls

AFTER_TRAINING = ["iter_1.train", "iter_1.export", "iter_1.rollout_held_out.00000", "iter_1.evaluate"]


def finished_on_slurm(overrides):
    """Every step published; the run's experiment."""
    experiment = load_experiment(overrides)
    publish_steps(experiment, *(job.name for job in jobs(experiment) if job.name != "report"))
    bind(experiment, RunLayout(experiment.run_dir))
    return experiment


def test_the_evaluation_of_a_training_that_is_to_be_made_anew_is_not_done(slurm, tmp_path, capsys):
    """The learning rate changes and the training is deleted: nothing is submitted beside what the old one left."""
    experiment = finished_on_slurm(slurm)
    shutil.rmtree(RunLayout(experiment.run_dir).artifact("train", 1))
    capsys.readouterr()
    for arguments in (["submit", *slurm, "train.learning_rate=0.01"], ["resume", str(experiment.run_dir)]):
        for more in ([], ["--dry-run"]):
            assert cli.main([*arguments, *more]) == 2
            error = capsys.readouterr().err
            assert "iter_1.export, iter_1.rollout_held_out.00000, iter_1.evaluate are out of date" in error
            assert "iter_1.export: input checkpoint: iter_1.train is missing" in error
            assert f"`nemo-sspo redo {experiment.run_dir}` makes them anew" in error
    assert calls(tmp_path) == {}
    missing = [part.job.name for part in missing_parts(jobs(experiment), freshness_of(experiment))]
    assert missing == [name.removesuffix(".00000") for name in AFTER_TRAINING] + ["report"]
    assert cli.main(["status", str(experiment.run_dir), "--json"]) == 0
    rows = {row["step"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[name]["state"] for name in AFTER_TRAINING] == ["missing", "stale", "stale", "stale"]
    assert rows["iter_1.evaluate"]["detail"] == "input new: iter_1.rollout_held_out.00000 is stale"
    assert rows["iter_1.diagnose"]["state"] == "published"


def test_redo_lists_sets_aside_and_submits(slurm, tmp_path, capsys):
    experiment = finished_on_slurm(slurm)
    run, layout = str(experiment.run_dir), RunLayout(experiment.run_dir)
    change = "train.learning_rate=0.01"
    assert cli.main(["redo", run, change, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "train.learning_rate: 0.0005 -> 0.01" in shown
    assert "input checkpoint: iter_1.train is stale" in shown
    assert "iter_1.reference_logps" not in shown
    assert all(is_published(layout.artifact("train", 1).parent / name) for name in ("train", "export", "evaluate"))
    assert cli.main(["redo", run, change]) == 0
    assert [name.removesuffix(".sbatch") for name in calls(tmp_path)] == [
        "iter_1.train",
        "iter_1.export",
        "iter_1.rollout_held_out",
        "iter_1.evaluate",
        "report",
    ]
    assert not layout.artifact("train", 1).exists()
    (aside,) = layout.set_aside.iterdir()
    assert is_published(aside / "iter_1" / "train")
    assert json.loads(layout.experiment.read_text())["train"]["learning_rate"] == 0.01


@pytest.fixture
def quick(monkeypatch):
    """Fake stages behind the real command, and no look at models that are not there."""
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(local, "stage_command", fake_command)
    monkeypatch.setattr(preflight, "CHECKS", (preflight.check_stored_experiment,))


def test_redo_makes_everything_after_a_step_anew_and_nothing_else(tmp_path, quick, capsys):
    experiment = tiny_experiment(tmp_path, "run")
    drive(experiment)
    layout, before = RunLayout(experiment.run_dir), digests(experiment.run_dir)
    made = {step.step_id: (step.output / "manifest.json").stat().st_mtime_ns for step in plan(experiment)}
    assert cli.main(["redo", str(experiment.run_dir), "--from", "iter_1.train"]) == 0
    again = {step.step_id: (step.output / "manifest.json").stat().st_mtime_ns for step in plan(experiment)}
    assert {name for name in made if again[name] != made[name]} == set(AFTER_TRAINING)
    shutil.rmtree(layout.set_aside)
    assert digests(experiment.run_dir) == before
    refuse_stale(experiment)


def test_a_redo_that_dies_half_way_leaves_nothing_without_its_inputs(tmp_path, monkeypatch):
    experiment = tiny_experiment(tmp_path, "run")
    publish_steps(experiment, *(step.step_id for step in plan(experiment)))
    layout, found = RunLayout(experiment.run_dir), invalidated(experiment, ["iter_1.rollout"])
    rename, left = Path.rename, len(found) // 2

    def die_in_the_middle(self, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            set_aside(layout, found)
    assert stale_steps(plan(experiment), freshness_of(experiment)) == {}
    assert len(invalidated(experiment, ["iter_1.rollout"])) == len(found) - len(found) // 2


def test_states_of_a_training_and_answers_of_its_policy_go_with_it(tmp_path):
    experiment = tiny_experiment(tmp_path, "run")
    layout = RunLayout(experiment.run_dir)
    publish_steps(experiment, "iter_1.evaluate")
    (layout.scratch("iter_1.train") / "abc" / "step_3").mkdir(parents=True)
    answers = layout.benchmark("mt-bench", 1)
    answers.parent.mkdir(parents=True)
    with publish(answers, stage="benchmark_mt_bench", iteration=1, config={}, inputs={}):
        pass
    names = [item.name for item in invalidated(experiment, ["iter_1.train"])]
    assert names == ["iter_1 mt-bench", *reversed(AFTER_TRAINING), "iter_1.train"]
    assert "iter_1 mt-bench" not in [item.name for item in invalidated(experiment, ["iter_1.evaluate"])]


def test_shards_that_a_run_no_longer_has_are_set_aside_too(tmp_path):
    many, few = (tiny_experiment(tmp_path, "run", f"rollout.shards={shards}") for shards in (3, 2))
    publish_steps(many, "iter_1.build_pairs")
    found = {item.name: item.reason for item in invalidated(few, [])}
    assert found["iter_1.rollout.00002"] == "no step of this run with these settings"
    assert found["iter_1.rollout.00000"] == "rollout.shards: 3 -> 2"
    assert "iter_0.import_policy" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "iter_1.trian"], "--from iter_1.trian: no step of this run; did you mean iter_1.train?"),
        (["name=other"], "redo changes no name"),
        (["experiment=quickstart"], "give the settings that change"),
        (["train.learning_rat=1"], "train.learning_rat"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    experiment = tiny_experiment(tmp_path, "run")
    publish_steps(experiment, "prepare_prompts")
    bind(experiment, RunLayout(experiment.run_dir))
    assert cli.main(["redo", str(experiment.run_dir), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_settings_of_a_stored_run_change_one_by_one_or_as_a_group(tmp_path):
    stored = tiny_experiment(tmp_path, "run", "gate=power", "gate.exponent=3")
    changed = change_experiment(stored, ["gate=sigmoid", "train.learning_rate=0.25", "cluster.parallel_steps=1"])
    assert (changed.gate.kind, changed.train.learning_rate, changed.cluster.parallel_steps) == ("sigmoid", 0.25, 1)
    assert changed.model_copy(update={name: getattr(stored, name) for name in ("gate", "train", "cluster")}) == stored
    assert change_experiment(stored, ["gate.exponent=4"]).gate.exponent == 4
    with pytest.raises(UserError, match=r"gate\.exponent"):
        change_experiment(stored, ["gate=sigmoid", "gate.exponent=4"])


def test_a_published_step_of_the_first_manifests_goes_on_where_nothing_changed(tmp_path):
    """Version 1 of the manifest: no names of steps among the inputs. Its identity stays what it was."""
    experiment = tiny_experiment(tmp_path, "run")
    for step in plan(experiment)[:3]:
        publish_steps(experiment, step.step_id)
        path = step.output / "manifest.json"
        old = json.loads(path.read_text()) | {"schema_version": 1}
        del old["knobs"], old["notes"]
        old["inputs"] = {name: [each["digest"] for each in group] for name, group in old["inputs"].items()}
        path.write_text(json.dumps(old))
    assert old["inputs"]["prompts"]
    publish_steps(experiment, "iter_1.rollout")  # made from them by this version
    refuse_stale(experiment)
    del old["config"]["seed"]
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"was made with other settings \(seed: unset -> 0\).*`nemo-sspo redo"):
        refuse_stale(experiment)
    path.write_text(json.dumps(old | {"schema_version": 9}))
    with pytest.raises(UserError, match="schema version 9, of another release of nemo-sspo"):
        refuse_stale(experiment)


def test_settings_of_every_stage_are_compared(tmp_path):
    """Each published step is stale once its own settings change, whatever they are."""
    experiment = tiny_experiment(tmp_path, "run")
    steps = plan(experiment)
    publish_steps(experiment, *(step.step_id for step in steps))
    for step in steps:
        path = step.output / "manifest.json"
        text = path.read_text()
        key = next(iter(stage_settings(experiment, step.stage)))
        manifest = json.loads(text)
        path.write_text(json.dumps(manifest | {"config": manifest["config"] | {key: "other"}}))
        stale = stale_steps(steps, freshness_of(experiment))
        assert step.step_id in stale
        assert {other.step_id for other in steps if step.step_id in other.depends_on} <= stale.keys()
        path.write_text(text)
    assert stale_steps(steps, freshness_of(experiment)) == {}
