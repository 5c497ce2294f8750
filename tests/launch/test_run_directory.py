"""A run is held by one runner and keeps the settings its artifacts were made with."""

import errno
import fcntl
import json
import shutil

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.errors import UserError
from nemo_sspo.launch.run_directory import bind, hold, stored_experiment, write_atomically
from tests.launch.fake_run import tiny_experiment
from tests.launch.published import publish_steps


def test_the_experiment_is_stored_once_and_reads_back(tmp_path):
    experiment, layout = tiny_experiment(tmp_path, "run"), RunLayout(tmp_path / "run")
    with hold(layout):
        assert bind(experiment, layout) == []
        assert stored_experiment(layout) == experiment
        before = layout.experiment.stat().st_mtime_ns
        assert bind(experiment, layout) == []
    assert layout.experiment.stat().st_mtime_ns == before


def test_a_setting_may_change_until_something_published_depends_on_it(tmp_path):
    experiment, layout = tiny_experiment(tmp_path, "run"), RunLayout(tmp_path / "run")
    faster = tiny_experiment(tmp_path, "run", "train.learning_rate=0.5", "cluster.parallel_steps=1")
    with hold(layout):
        bind(experiment, layout)
        publish_steps(experiment, "iter_1.rollout.00000")
        assert bind(faster, layout) == ["train.learning_rate: 0.0005 -> 0.5", "cluster.parallel_steps: 2 -> 1"]
        publish_steps(faster, "iter_1.train")
        with pytest.raises(UserError) as caught:
            bind(experiment, layout)
        assert str(caught.value) == (
            f"{layout.root} was made with other settings (train.learning_rate: 0.5 -> 0.0005), which iter_1.train "
            "depends on: give this run another name=..., or the settings it had, or have what they change made anew: "
            f"`nemo-sspo redo {layout.root} train.learning_rate=0.0005 --dry-run` lists it"
        )
        assert stored_experiment(layout) == faster


def test_what_a_selection_is_made_with_may_change_until_it_is_made(tmp_path):
    layout = RunLayout(tmp_path / "run")

    def selecting(*settings):
        return tiny_experiment(tmp_path, "run", *(f"selection.{setting}" for setting in settings))

    def refusal(*settings):
        with pytest.raises(UserError) as caught:
            bind(selecting(*settings), layout)
        return str(caught.value)

    with hold(layout):
        bind(selecting(), layout)
        assert bind(selecting("prompts=9"), layout) == ["selection.prompts: 200 -> 9"]
        two = selecting("candidates=2")
        publish_steps(selecting("prompts=9"), "prepare_prompts")
        assert "selection.prompts: unset -> 200), which prepare_prompts depends on" in refusal("candidates=2")
        shutil.rmtree(layout.artifact("prepare_prompts"))
        bind(two, layout)
        for step in ("prepare_prompts", "iter_1.train"):
            publish_steps(two, step)
        assert "selection.candidates: 2 -> 3), which iter_1.train depends on" in refusal("candidates=3")
        by_length = selecting("candidates=2", "criterion=length_controlled")
        assert bind(by_length, layout) == ["selection.criterion: 'win_rate' -> 'length_controlled'"]
        publish_steps(by_length, "iter_1.select_model")
        changed = "selection.criterion: 'length_controlled' -> 'win_rate'), which iter_1.select_model depends on"
        assert changed in refusal("candidates=2")


def test_the_lock_is_free_again_after_a_runner_that_died(tmp_path):
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    layout.lock.write_text("process 999999999 on elsewhere")
    with hold(layout):
        assert "on elsewhere" not in layout.lock.read_text()
        with pytest.raises(UserError, match="already being run by process"), hold(layout):
            pass
    with hold(layout):
        pass


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be used as a run directory"), hold(RunLayout(tmp_path / "run")):
        pass


def test_a_write_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "experiment.json"
    write_atomically(path, json.dumps({"a": 1}))
    with pytest.raises(TypeError):
        write_atomically(path, 5)
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch, number):
    """Lustre without -o flock, NFS without a lock daemon."""

    def no_locks(*_):
        raise OSError(number, "not there")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UserError, match="this file system has no locks"), hold(RunLayout(tmp_path / "run")):
        pass


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no run lies there"):
        stored_experiment(RunLayout(tmp_path / "file"))
