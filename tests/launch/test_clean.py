"""What `clean` removes is what nothing reads any more; the run stays as finished, and as able to go on, as it was."""

import shutil
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import open_artifact
from nemo_sspo.config.load import change_experiment, load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.clean import disposable, freed_bytes, refuse_removed
from nemo_sspo.launch.local.status import local_status
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.run_directory import bind, going_on, hold
from tests.launch import ready_run
from tests.launch.published import publish_steps

GIVEN = ["experiment=quickstart", *ready_run.OVERRIDES, "iterations=2", "data.prompts_per_iteration=5"]
WEIGHTS = {
    "import_policy": ("nemo/weights",),
    "train": ("nemo/weights", "candidates/00000/weights", "metrics.jsonl"),
    "export": ("hf/model.safetensors", "hf/config.json"),
    "export_candidate": ("hf/model.safetensors",),
}
ALL = ("states", "set-aside", "candidates", "checkpoints", "exports")
SIZE = 4096


def with_weights(step, draft):
    for name in WEIGHTS.get(step.stage, ()):
        (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
        (draft.path / name).write_bytes(b"w" * SIZE)


def published(*overrides, names=()):
    experiment = load_experiment([*GIVEN, *overrides])
    publish_steps(experiment, *(names or (step.step_id for step in plan(experiment))), fill=with_weights)
    bind(experiment, RunLayout(experiment.run_dir))
    return experiment


def gone(experiment, *kinds):
    found = disposable(experiment, kinds or ALL)
    return {str(path.relative_to(experiment.run_dir)) for item in found for path in item.paths}


def test_of_a_finished_run_the_last_policy_stays(place, capsys):
    experiment = published()
    run = str(experiment.run_dir)
    went = {"iter_0/import_policy/nemo/weights", "iter_1/train/nemo/weights", "iter_1/train/candidates/00000/weights"}
    assert gone(experiment) == went | {"iter_1/export/hf/model.safetensors"}
    assert cli.main(["clean", run, "--dry-run"]) == 0
    assert f"{3 * SIZE / 2**30:.2f} GiB would be freed" in capsys.readouterr().out
    assert all((experiment.run_dir / path).exists() for path in went)
    assert cli.main(["clean", run, "--keep", "candidates"]) == 0
    assert (experiment.run_dir / "iter_1/train/candidates/00000/weights").exists()
    assert cli.main(["clean", run]) == 0
    assert not any((experiment.run_dir / path).exists() for path in went)
    assert not (experiment.run_dir / "iter_1/train/nemo").exists()
    assert (experiment.run_dir / "iter_1/export/hf/model.safetensors").exists()
    capsys.readouterr()
    assert cli.main(["clean", run]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_a_cleaned_run_is_as_finished_as_before_and_goes_on(place, capsys):
    experiment = published()
    assert cli.main(["clean", str(experiment.run_dir), "--also", "exports"]) == 0
    assert {row.state for row in local_status(experiment)} == {"published"}
    assert problems(experiment) == []
    for command in ("report", "summary"):
        assert cli.main([command, str(experiment.run_dir)]) == 0
    assert problems(going_on(change_experiment(experiment, ["iterations=3"]))) == []
    capsys.readouterr()
    assert cli.main(["run", str(experiment.run_dir)]) == 0  # nothing is started, so no stage is needed here
    assert "start  " not in capsys.readouterr().out


def test_what_a_step_would_have_to_read_is_refused_before_it_starts(place, capsys):
    experiment = published()
    layout, run = RunLayout(experiment.run_dir), str(experiment.run_dir)
    assert cli.main(["clean", run]) == 0
    with pytest.raises(UserError, match=r"train/candidates/.*`nemo-sspo clean` removed it; .* --from iter_1.train"):
        open_artifact(layout.artifact("train", 1))
    open_artifact(layout.artifact("train", 1), whole=False)
    capsys.readouterr()
    assert cli.main(["redo", run, "--from", "iter_2.train", "--dry-run"]) == 2
    assert "iter_2.train reads" in (error := capsys.readouterr().err)
    assert f"`nemo-sspo redo {run} --from iter_1.train` makes it anew" in error
    shutil.rmtree(layout.artifact("train", 2))
    shutil.rmtree(layout.artifact("reference_logps", 2))
    with pytest.raises(UserError, match=r"reads .*removed"):
        refuse_removed(experiment)
    refuse_removed(experiment, {step.step_id for step in plan(experiment)})  # all of it is made anew


def test_nothing_that_is_still_to_be_read_goes(place):
    """Between two trainings, and where the base is what each of them is held against."""
    half = published(names=("iter_2.build_pairs", "iter_1.evaluate", "iter_1.diagnose"))
    assert gone(half) == {"iter_0/import_policy/nemo/weights"}
    shutil.rmtree(half.run_dir)
    based = published("train.reference=base")
    assert "iter_0/import_policy/nemo/weights" not in gone(based)


def test_the_checkpoint_that_was_chosen_stays_with_the_last_policy(place):
    experiment = published("selection.candidates=2", "train.train_epochs=2", "selection.prompts=5")
    found = gone(experiment, "candidates")
    exported = {f"iter_{t}/export_candidate/shard_{n:05d}/hf/model.safetensors" for t in (1, 2) for n in (0, 1)}
    assert found == exported | {"iter_1/train/candidates/00000/weights"}


def test_states_and_what_redo_took_out(place):
    experiment = published(names=("iter_1.train",))
    layout = RunLayout(experiment.run_dir)
    scratches = [layout.scratch("iter_1.train"), layout.scratch("iter_2.train"), layout.set_aside / "then" / "iter_1"]
    scratches.append(layout.artifact("export", 1).with_name(".export.abc.tmp"))
    for folder in scratches:
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"s" * SIZE)
    found = disposable(experiment, ("states", "set-aside"))
    assert {item.path for item in found} == {scratches[0], scratches[3], layout.set_aside / "then"}
    assert freed_bytes(found) == 3 * SIZE
    (Path("elsewhere")).hardlink_to(scratches[0] / "state")
    assert freed_bytes(found) == 2 * SIZE


def test_a_run_in_progress_is_left_alone(place, capsys):
    experiment = published()
    with hold(RunLayout(experiment.run_dir)):
        assert cli.main(["clean", str(experiment.run_dir)]) == 2
    assert "already being run by" in capsys.readouterr().err
    assert gone(experiment, "checkpoints")
