"""Steps dealt to processes: each once and in order, and what becomes of a shard batch that is disturbed."""

import itertools
import json
import os
import signal
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.shard_batches import fair_size, shard_batches
from nemo_sspo.stages.runner.registry import STAGES
from tests.launch.fake_run import Recorder, digests, drive, tiny_experiment
from tests.processes import processes_naming
from tests.waiting import wait_until

EXPERIMENT = tiny_experiment(Path("runs"), "run")
SHARDS = [f"iter_1.rollout.{shard:05d}" for shard in range(4)]


def sample_and_score(experiment) -> Recorder:
    """The stages that shard batches are about: a process for each costs time."""
    return drive(experiment, stages=("prepare_prompts", "rollout", "score"))


@given(shards=st.integers(1, 9), iterations=st.integers(1, 2), size=st.integers(1, 12), data=st.data())
def test_every_step_is_in_one_lane_and_keeps_its_place(shards, iterations, size, data):
    rollout = EXPERIMENT.rollout.model_copy(update={"shards": shards})
    steps = plan(EXPERIMENT.model_copy(update={"rollout": rollout, "iterations": iterations}))
    ready = data.draw(st.lists(st.sampled_from(steps), unique=True))
    cut = shard_batches(ready, lambda step: size)
    assert sorted(step.step_id for batch in cut for step in batch) == sorted(step.step_id for step in ready)
    for batch in cut:
        assert len({(step.stage, step.iteration) for step in batch}) == 1
        assert [ready.index(step) for step in batch] == sorted(ready.index(step) for step in batch)
        assert len(batch) == 1 or (STAGES[batch[0].stage].sharded and len(batch) <= size)
    for stage in {step.stage for step in ready if STAGES[step.stage].sharded}:
        for iteration in range(iterations + 1):
            alike = [step for step in ready if (step.stage, step.iteration) == (stage, iteration)]
            own = [batch for batch in cut if (batch[0].stage, batch[0].iteration) == (stage, iteration)]
            assert len(own) == ceil(len(alike) / size), "no more processes than needed"


def test_candidates_have_models_of_their_own_and_never_share_a_process(tmp_path):
    selecting = tiny_experiment(tmp_path, "run", "selection.candidates=3", "rollout.shards=3")
    cut = shard_batches(plan(selecting), lambda step: 3)
    sizes = {(batch[0].stage, batch[0].iteration): len(batch) for batch in cut}
    assert (sizes["export_candidate", 1], sizes["rollout_selection", 1]) == (1, 1)
    assert (sizes["rollout", 1], sizes["score", 1]) == (3, 3)


@given(unfinished=st.integers(1, 200), processes=st.integers(0, 40))
def test_a_fair_share_keeps_every_process_busy_and_needs_no_second_load(unfinished, processes):
    size, width = fair_size(unfinished, processes), max(1, processes)
    assert size * width >= unfinished > (size - 1) * width


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """Digests of a run in which every shard had a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        patch.setattr(local, "fair_size", lambda unfinished, processes: 1)
        experiment = tiny_experiment(tmp_path_factory.mktemp("runs"), "run", "rollout.shards=4")
        sample_and_score(experiment)
    return digests(experiment.run_dir)


def four_shards(folder):
    experiment = tiny_experiment(folder, "run", "rollout.shards=4")
    return experiment, RunLayout(experiment.run_dir)


def behave(monkeypatch, **how):
    monkeypatch.setenv("FAKE_STAGES", json.dumps(how))


def processes_of(layout, stage):
    """How many processes a stage's shards took: a log that is a link is another shard's."""
    return sum(not path.is_symlink() for path in layout.root.glob(f"logs/iter_1.{stage}.*.log"))


def test_a_shard_is_scored_while_its_lane_samples_the_next(tmp_path, monkeypatch, one_by_one):
    """Shard 1 waits for the scoring of shard 0, which waits for shard 3: so that a second process scores the rest."""
    how = {SHARDS[1]: "after progress/iter_1.score.00000.json"}
    behave(monkeypatch, **how, **{"iter_1.score.00000": "after iter_1/rollout/shard_00003/manifest.json"})
    experiment, layout = four_shards(tmp_path)
    shown = sample_and_score(experiment)
    assert (processes_of(layout, "rollout"), processes_of(layout, "score")) == (1, 2)
    begun = shown.events.index(("started", "iter_1.score.00000"))
    assert shown.events.index(("finished", SHARDS[0])) < begun < shown.events.index(("finished", SHARDS[-1]))
    for earlier, later in itertools.pairwise(SHARDS):
        assert shown.events.index(("finished", earlier)) < shown.events.index(("started", later))
    assert layout.log(SHARDS[2], "1").read_text() == layout.log(SHARDS[0], "1").read_text()
    assert digests(experiment.run_dir) == one_by_one


def test_a_failure_in_a_lane_is_its_own_steps(tmp_path, monkeypatch, one_by_one):
    """What was published before it stays; the step, its log and its end are named."""
    experiment, layout = four_shards(tmp_path)
    behave(monkeypatch, **{SHARDS[2]: "crash"})
    with pytest.raises(StepFailed, match=rf"{SHARDS[2]} failed with exit code 1") as caught:
        sample_and_score(experiment)
    assert "RuntimeError: matrix is singular" in str(caught.value)
    assert "matrix is singular" in layout.log(SHARDS[2], "1").read_text()
    assert [is_published(layout.artifact("rollout", 1, shard)) for shard in range(4)] == [True, True, False, False]
    behave(monkeypatch, **{SHARDS[2]: "refuse"})
    with pytest.raises(StepFailed, match=r"^error: prompts.jsonl line 3: not JSON\n  in iter_1.rollout.00002;"):
        sample_and_score(experiment)
    monkeypatch.delenv("FAKE_STAGES")
    shown = sample_and_score(experiment)
    assert [name for name in SHARDS if name in shown.of("skipped")] == SHARDS[:2]
    assert layout.log(SHARDS[2], "3").exists()
    assert digests(experiment.run_dir) == one_by_one


def test_kill_9_in_the_middle_of_a_lane_then_run_again(tmp_path, monkeypatch, driver, one_by_one):
    behave(monkeypatch, **{SHARDS[2]: "hang"})
    experiment, layout = four_shards(tmp_path)
    process = driver(tmp_path, "run", "rollout.shards=4")
    wait_until(lambda: layout.progress(SHARDS[2]).exists(), 120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.delenv("FAKE_STAGES")
    shown = sample_and_score(experiment)
    assert [name for name in SHARDS if name in shown.of("skipped")] == SHARDS[:2]
    assert one_by_one.items() <= digests(experiment.run_dir).items()
    assert processes_naming(str(tmp_path)) == []
    assert not list(experiment.run_dir.glob("iter_1/rollout/.*.tmp"))  # the killed run had begun other stages too


@pytest.mark.usefixtures("eight_gpus")
def test_gpus_deal_an_engine_each_and_the_last_lanes_are_shorter(tmp_path, monkeypatch):
    """Two GPUs, five shards: two engines take three and two of them, and no third is loaded."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    overrides = ("cluster.gpus=null", "rollout.shards=5", "parallel.tensor=2", "parallel.pipeline=1")
    experiment = tiny_experiment(tmp_path, "run", *overrides)
    sample_and_score(experiment)
    layout = RunLayout(experiment.run_dir)
    assert processes_of(layout, "rollout") == 2
    devices = [(layout.artifact("rollout", 1, n) / "volatile" / "devices").read_text() for n in range(5)]
    assert devices == ["5"] * 3 + ["7"] * 2
