"""kill -9 in the middle of every stage, then run again: the artifacts are those of an undisturbed run."""

import os
import shutil
import signal
import time

import pytest

from nemo_sspo.artifacts.layout import RunLayout, step_id
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.launch.redo import invalidated, set_aside
from nemo_sspo.launch.run_directory import stored_experiment
from tests.e2e.loop import digests, finish, start
from tests.processes import processes_naming
from tests.waiting import wait_until

# Steps in the order in which they can run; import_policy and the base's held-out rollout overlap with the first ones.
STEPS = (
    ("prepare_prompts", 0, None),
    ("import_policy", 0, None),
    ("rollout_held_out", 0, 0),
    ("rollout", 1, 0),
    ("score", 1, 0),
    ("embed", 1, 0),
    ("build_pairs", 1, None),
    ("reference_logps", 1, None),
    ("train", 1, None),
    ("export", 1, None),
    ("rollout_held_out", 1, 0),
    ("evaluate", 1, None),
)

# These take seconds: one that was never killed was missed, not too quick to be seen.
SLOW = {"import_policy", "rollout", "reference_logps", "train", "export"}

# Whichever test comes first also waits for the undisturbed run.
pytestmark = pytest.mark.timeout(1500)

# Of a step's time in the undisturbed run, at which it is killed; earlier where it was quicker this time.
SHARES = (1 / 2, 1 / 8, 0)


def kill_in(run, final, seconds):
    """Start the run, kill -9 its driver `seconds` into the step that makes `final`; whether that was published."""
    draft = f".{final.name}.*.tmp"
    for left in final.parent.glob(draft):  # by a kill that was another step's: it would be taken for a new one
        shutil.rmtree(left)
    process = start(run)
    wait_until(lambda: any(final.parent.glob(draft)) or is_published(final), 240, f"the start of {final}")
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not processes_naming(str(run.root)), 20, "the end of the killed driver's children")
    return is_published(final)


def take_out(run, step):
    """Take a step out of the run, with all that was made from it."""
    set_aside(run, invalidated(stored_experiment(run), [step]))
    shutil.rmtree(run.set_aside)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = RunLayout(tmp_path_factory.mktemp("runs") / "undisturbed")
    return run, finish(run)


def test_artifacts_of_a_run_killed_in_every_stage_equal_an_undisturbed_runs(undisturbed, tmp_path):
    reference, _ = undisturbed
    run = RunLayout(tmp_path / "killed")
    killed = []
    for stage, iteration, shard in STEPS:
        final = run.artifact(stage, iteration, shard)
        seconds = open_artifact(reference.artifact(stage, iteration, shard)).manifest.timings["seconds"]
        for share in SHARES:
            if is_published(final):  # it ran beside a stage that was being killed, or was over too soon
                take_out(run, step_id(stage, iteration, shard))
            if not kill_in(run, final, share * seconds):
                killed.append(stage)
                break
    assert set(killed) >= SLOW, killed
    assert len(killed) >= len(STEPS) - 2, killed  # a step may be quicker than it is seen
    finish(run)
    assert digests(run) == digests(reference)


def test_a_finished_run_runs_nothing_again(undisturbed):
    run, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in run.root.glob("**/manifest.json")}
    finish(run, timeout=60)
    assert {path: path.stat().st_mtime_ns for path in run.root.glob("**/manifest.json")} == before


def test_step_one_meets_its_closed_form(undisturbed):
    run, _ = undisturbed
    counts = open_artifact(run.artifact("train", 1)).manifest.counts
    assert counts["step1_loss"] == pytest.approx(counts["step1_closed_form"], rel=1e-5)
    assert counts["step1_closed_form"] > 0
