"""The local runner: every step once, in order, resumable after any death, and clear about failures."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.errors import UserError
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.local.guard import guarded
from nemo_sspo.launch.local.processes import stage_command
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.plan import plan
from tests.launch.fake_run import Recorder, digests, drive, tiny_experiment
from tests.processes import kill_9, processes_naming, words_of
from tests.waiting import wait_until

EXPERIMENT = tiny_experiment(Path("runs"), "run")
STEP = plan(EXPERIMENT)[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run: its experiment, its events, and the content of its artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        experiment = tiny_experiment(tmp_path_factory.mktemp("runs"), "undisturbed")
        return experiment, drive(experiment), digests(experiment.run_dir)


def behave(monkeypatch, **how):
    monkeypatch.setenv("FAKE_STAGES", json.dumps(how))


def test_every_step_runs_once_and_after_what_it_reads(finished):
    experiment, shown, _ = finished
    steps = plan(experiment)
    assert sorted(shown.of("finished")) == sorted(step.step_id for step in steps)
    for step in steps:
        begun = shown.events.index(("started", step.step_id))
        assert all(shown.events.index(("finished", parent)) < begun for parent in step.depends_on)


def test_two_steps_run_at_once_and_never_three(finished):
    _, shown, _ = finished
    running = widest = 0
    for event, _ in shown.events:
        running += {"started": 1, "finished": -1}[event]
        widest = max(widest, running)
    assert widest == 2


def test_a_second_run_starts_nothing(finished):
    experiment, _, before = finished
    again = drive(experiment)
    assert again.of("started") == []
    assert len(again.of("skipped")) == len(plan(experiment))
    assert digests(experiment.run_dir) == before


def test_progress_of_a_step_reaches_the_display(tmp_path, monkeypatch):
    behave(monkeypatch, **{"prepare_prompts": 0.5, "iter_0.rollout_held_out.00000": "crash"})
    shown = Recorder()
    with pytest.raises(StepFailed):
        drive(tiny_experiment(tmp_path, "run"), shown)
    state = shown.states["prepare_prompts"]
    assert (state["done"], state["total"], state["unit"], state["note"]) == (1, 2, "halves", "working")


def test_bad_input_of_a_stage_is_its_one_line(tmp_path, monkeypatch):
    behave(monkeypatch, **{"iter_1.score.00000": "refuse"})
    with pytest.raises(StepFailed) as caught:
        drive(tiny_experiment(tmp_path, "run"))
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("error: prompts.jsonl line 3: not JSON\n  in iter_1.score.00000; its log is ")


@pytest.mark.parametrize(("stage", "is_one_line"), [("train", True), ("export", False)])
def test_torchrun_ends_with_1_where_its_ranks_refused_their_input(tmp_path, stage, is_one_line):
    step = next(step for step in plan(EXPERIMENT) if step.stage == stage)
    log = tmp_path / "log"
    log.write_text("error: the policy has 3 layers\nChildFailedError: exitcode: 2\n")
    text = str(StepFailed(step, 1, log))
    assert text.startswith("error: the policy has 3 layers\n") == is_one_line
    assert ("ChildFailedError" in text) != is_one_line


def test_a_crash_shows_the_end_of_the_log_and_the_run_continues_later(tmp_path, monkeypatch, finished):
    experiment = tiny_experiment(tmp_path, "undisturbed")
    behave(monkeypatch, **{"iter_1.build_pairs": "crash"})
    with pytest.raises(StepFailed) as caught:
        drive(experiment)
    text = str(caught.value)
    assert "iter_1.build_pairs failed with exit code 1" in text
    assert "RuntimeError: matrix is singular" in text
    assert "line 5\n" not in text  # only the end
    assert str(RunLayout(experiment.run_dir).log("iter_1.build_pairs", "1")) in text
    monkeypatch.delenv("FAKE_STAGES")
    shown = drive(experiment)
    assert "iter_1.rollout.00000" in shown.of("skipped")
    assert RunLayout(experiment.run_dir).log("iter_1.build_pairs", "2").exists()
    assert digests(experiment.run_dir) == finished[2]


def test_a_step_that_publishes_nothing_has_failed(tmp_path, monkeypatch):
    behave(monkeypatch, prepare_prompts="silent")
    with pytest.raises(StepFailed, match="prepare_prompts"):
        drive(tiny_experiment(tmp_path, "run"))


def test_a_failure_stops_the_steps_beside_it(tmp_path, monkeypatch):
    behave(monkeypatch, **{"iter_0.import_policy": "hang", "prepare_prompts": "crash"})
    with pytest.raises(StepFailed, match="prepare_prompts"):
        drive(tiny_experiment(tmp_path, "run"))
    assert processes_naming(str(tmp_path)) == []


def hanging(run, step):
    """Whether the fake step has got to where it hangs."""
    state = read_progress(run.progress(step))
    return state is not None and state["done"] == 1


@pytest.mark.parametrize("step", ["prepare_prompts", "iter_1.rollout.00000", "iter_1.train"])
def test_kill_9_of_the_runner_in_a_step_then_run_again(tmp_path, monkeypatch, driver, finished, step):
    experiment = tiny_experiment(tmp_path, "undisturbed")
    layout = RunLayout(experiment.run_dir)
    behave(monkeypatch, **{step: "hang"})
    process = driver(tmp_path, "undisturbed")
    wait_until(lambda: hanging(layout, step), 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.delenv("FAKE_STAGES")
    drive(experiment)  # at once: it waits for what is left of the killed run
    assert digests(experiment.run_dir) == finished[2]
    assert processes_naming(str(tmp_path)) == []
    assert not list(experiment.run_dir.glob("**/.*.tmp"))


def test_a_killed_step_fails_the_run_and_is_named(tmp_path, monkeypatch, driver):
    layout = RunLayout(tmp_path / "run")
    behave(monkeypatch, **{"iter_0.import_policy": "hang"})
    process = driver(tmp_path, "run")
    wait_until(lambda: hanging(layout, "iter_0.import_policy"), 60)
    for pid in processes_naming(str(tmp_path)):
        words = words_of(pid)
        if "import_policy" in words and "nemo_sspo.launch.local.guard" not in words:
            kill_9(pid)
    _, errors = process.communicate(timeout=30)
    assert b"StepFailed: error: iter_0.import_policy was killed (signal 9" in errors


def test_a_second_runner_of_the_same_run_is_refused(tmp_path, monkeypatch, driver):
    behave(monkeypatch, prepare_prompts="hang")
    process = driver(tmp_path, "run")
    wait_until(lambda: hanging(RunLayout(tmp_path / "run"), "prepare_prompts"), 60)
    with pytest.raises(UserError, match=f"already being run by process {process.pid} on"):
        drive(tiny_experiment(tmp_path, "run"))


def copy_of(finished, tmp_path):
    """The undisturbed run in a directory of its own."""
    experiment, _, _ = finished
    shutil.copytree(experiment.run_dir, tmp_path / "undisturbed")
    return tiny_experiment(tmp_path, "undisturbed"), tmp_path / "undisturbed"


def test_an_edited_file_of_a_published_step_is_refused(tmp_path, finished):
    changed, run = copy_of(finished, tmp_path)
    (run / "prompts" / "content.txt").write_text("other prompts")
    with pytest.raises(UserError, match=r"content.txt: differs from its manifest .* --from prepare_prompts` makes it"):
        drive(changed)


def test_a_step_whose_input_is_gone_is_refused_before_anything_starts(tmp_path, finished):
    changed, run = copy_of(finished, tmp_path)
    shutil.rmtree(run / "iter_1" / "rollout" / "shard_00000")
    shown = Recorder()
    with pytest.raises(
        UserError, match=r"out of date \(iter_1.score.00000: input rollout: iter_1.rollout.00000 is missing"
    ):
        drive(changed, shown)
    assert shown.events == []


@pytest.mark.usefixtures("eight_gpus")
def test_gpus_are_dealt_out_and_returned(tmp_path, monkeypatch):
    """Two engines on two GPUs, one each; training on both; none for conversion; outer ranks are not passed on."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("RANK", "3")
    overrides = ("cluster.gpus=null", "rollout.shards=2", "parallel.tensor=2", "parallel.pipeline=1")
    experiment = tiny_experiment(tmp_path, "run", *overrides)
    drive(experiment)
    layout = RunLayout(experiment.run_dir)

    def devices(stage, shard=None):
        return (layout.artifact(stage, 1, shard) / "volatile" / "devices").read_text()

    assert devices("rollout", 0) in ("5", "7")
    assert {*devices("train").split(",")} == {"5", "7"}
    assert devices("export") == devices("build_pairs") == ""
    assert all(is_published(step.output) for step in plan(experiment))


def test_a_machine_without_gpus_hides_them(finished):
    experiment, _, _ = finished
    path = RunLayout(experiment.run_dir).artifact("rollout", 1, 0) / "volatile" / "devices"
    assert path.read_text() == ""


def test_only_training_stages_go_through_torchrun(tmp_path):
    experiment = tiny_experiment(tmp_path, "run", "cluster.launcher=torchrun")
    steps = {step.stage: step for step in plan(experiment)}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "nemo_sspo.stages"]
    assert stage_command(experiment, (steps["train"],), "1")[1:7] == launcher
    assert stage_command(experiment, (steps["export"],), "1")[1:3] == ["-m", "nemo_sspo.stages"]
    forked = tiny_experiment(tmp_path, "run")
    assert stage_command(forked, (steps["train"],), "1")[1:3] == ["-m", "nemo_sspo.stages"]


@settings(max_examples=10_000)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
@example(text="$(touch canary)")
@example(text="`touch canary`; touch canary | touch canary\ntouch canary")
def test_a_configured_string_is_one_argument_whatever_it_holds(text):
    """No shell reads a command line, so a value is never more than a value."""
    environment = EXPERIMENT.cluster.train.model_copy(update={"python": text})
    cluster = EXPERIMENT.cluster.model_copy(update={"train": environment, "rollout": environment})
    experiment = EXPERIMENT.model_copy(update={"runs_dir": text, "cluster": cluster})
    command = guarded(stage_command(experiment, (STEP,), "1"))
    plain = guarded(stage_command(EXPERIMENT, (STEP,), "1"))
    assert len(command) == len(plain)
    differing = [got for got, expected in zip(command, plain, strict=True) if got != expected]
    assert set(differing) <= {text, f"--run={experiment.run_dir}"}


def test_no_module_ever_asks_for_a_shell():
    pattern = re.compile(r"shell\s*=\s*True|os\.system|os\.popen|getoutput|create_subprocess_shell")
    sources = (Path(__file__).parents[3] / "nemo_sspo").rglob("*.py")
    assert [path.name for path in sources if pattern.search(path.read_text())] == []
