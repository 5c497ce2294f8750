"""What goes wrong on a cluster: every time the run comes to its end, and its artifacts are an undisturbed run's.

The stages are fake ones that publish what their inputs determine; Slurm, the scripts and the step runner are real.
"""

import os

import pytest

from nemo_sspo.launch.slurm.commands import live_jobs
from tests.launch.fake_run import digests, drive, tiny_experiment
from tests.processes import kill_9, words_of
from tests.slurm.cluster import processes_in
from tests.waiting import wait_until

ALL_JOBS = [
    "prepare_prompts",
    "iter_0.import_policy",
    "iter_0.rollout_held_out",
    "iter_1.rollout",
    "iter_1.score",
    "iter_1.embed",
    "iter_1.build_pairs",
    "iter_1.reference_logps",
    "iter_1.train",
    "iter_1.export",
    "iter_1.rollout_held_out",
    "iter_1.evaluate",
    "iter_1.diagnose",
    "report",
]
# Several runs of up to twenty jobs may follow one another on a busy host; `SlurmRun.wait` gives each 280 s.
pytestmark = pytest.mark.timeout(600)

TRAIN, SHARD_0, SHARD_1 = "iter_1.train", "iter_1.rollout.00000", "iter_1.rollout.00001"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Digests of an undisturbed run of the local runner: a fake artifact depends on its step, seed and inputs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        experiment = tiny_experiment(tmp_path_factory.mktemp("local"), "local", "rollout.shards=2")
        drive(experiment)
    return digests(experiment.run_dir)


def test_undisturbed_then_submitted_again(fake, expected, capsys):
    assert fake.submit() == 0
    assert f"{len(ALL_JOBS)} jobs submitted" in capsys.readouterr().out
    fake.wait()
    assert fake.digests() == expected
    assert fake.submitted() == ALL_JOBS
    assert fake.history(SHARD_1) == fake.history(TRAIN) == ["start", "finished"]
    assert {row["state"] for row in fake.status(capsys).values()} == {"published"}
    assert fake.history("report") == ["start", "finished"]
    page = fake.layout.report.read_text()
    assert "Finished: all 16 steps are published" in page
    assert fake.command("resume") == 0
    assert "every step is published" in capsys.readouterr().out
    assert fake.submitted() == ALL_JOBS


def test_tasks_killed_and_told_to_stop_run_their_own_shard_again(fake, expected):
    """kill -9 in one rollout task, SIGUSR1 before preemption in the other, then SIGUSR1 in training."""
    fake.behave(iter_1__rollout__00000="wait", iter_1__rollout__00001="wait", iter_1__train="save")
    assert fake.submit() == 0
    fake.wait_for(SHARD_0)
    job = fake.wait_for(SHARD_1)
    kill_stage(fake, SHARD_0)
    fake.slurm.tell_to_stop(job)
    fake.slurm.tell_to_stop(fake.wait_for(TRAIN))
    fake.wait()
    assert fake.history(SHARD_0) == ["start", "crashed", "start", "finished"]
    assert fake.events(SHARD_0)[1].code == 137
    assert fake.history(SHARD_1) == ["start", "interrupted", "start", "finished"]
    assert fake.history(TRAIN) == ["start", "interrupted", "start", "finished"]
    assert [event.restart for event in fake.events(TRAIN)] == [0, 0, 1, 1]
    assert fake.history("iter_1.score.00000") == ["start", "finished"]
    assert fake.digests() == expected
    assert fake.submitted() == ALL_JOBS  # Slurm ran them again, nobody submitted them again


def test_a_task_of_two_shards_keeps_the_first_when_the_second_crashes(fake, expected):
    fake.behave(iter_1__rollout__00001="crash")
    assert fake.submit("cluster.shards_per_task=2") == 0
    fake.wait()
    assert fake.history(SHARD_0) == ["start", "crashed", "start", "finished"]
    assert "matrix is singular" in fake.log(SHARD_1)
    begun = fake.log(SHARD_0)
    assert begun.count(f"begin {SHARD_0}") == begun.count(f"begin {SHARD_1}") == 2
    assert fake.history("iter_1.score.00000") == ["start", "finished"]
    assert fake.history(SHARD_1) == fake.history("iter_1.score.00001") == []
    assert fake.submitted() == ALL_JOBS
    assert fake.digests() == expected


def kill_stage(fake, step_id):
    """kill -9 the Python of a rollout step, as the kernel does when memory is short."""
    shard = str(int(step_id.rpartition(".")[2]))
    for pid in processes_in(fake.layout.root):
        words = words_of(pid)
        if "tests.slurm.fake_stages" in words and words[words.index("--shard") + 1] == shard:
            kill_9(pid)


def test_a_time_limit_and_a_lost_node_in_training(fake, expected):
    """The limit's signal reaches training in time; the node that runs the next attempt goes down.

    Slurm may give the signal up to half a minute early: the next attempts get a limit that does not reach them too.
    """
    fake.behave(iter_1__train="save!")
    assert fake.submit("cluster.stages.train.time=00:01:00", "cluster.signal_seconds=50") == 0
    wait_until(lambda: "interrupted" in fake.history(TRAIN), 200, "the signal before the time limit")
    fake.slurm.raise_limit(fake.events(TRAIN)[-1].job, minutes=20)
    job = fake.wait_for(TRAIN, restart=1)
    fake.stop_misbehaving()
    fake.slurm.lose_node(fake.slurm.nodes_of(job)[1])
    fake.wait()
    assert fake.history(TRAIN)[:3] == ["start", "interrupted", "start"]
    assert fake.history(TRAIN)[-2:] == ["start", "finished"]
    assert fake.events(TRAIN)[-1].restart >= 2  # exactly 2, unless the signal was quicker than the longer limit
    assert fake.digests() == expected


def test_an_early_stop_ends_the_jobs_of_later_iterations_with_success(fake, capsys):
    """Both iterations' jobs wait in Slurm when the first one's choice ends the run."""
    selecting = ("iterations=2", "selection.candidates=2", "selection.prompts=8", "train.global_batch_size=8")
    fake.behave(iter_1__select_model="stop")
    assert fake.submit(*selecting, "selection.early_stop=true", "train.train_epochs=2") == 0
    fake.wait()
    submitted = fake.submitted()
    assert {"iter_2.rollout", "iter_2.train", "iter_2.select_model", "report"} <= set(submitted)
    left_out = [step for step in ("iter_2.rollout.00001", "iter_2.train", "iter_2.evaluate")]
    for step in left_out:
        assert fake.history(step) == [
            "start",
            "finished",
        ]  # had a job failed, those behind it would have been cancelled
        assert "left out: the run has stopped after iteration 1: nobody wins" in fake.log(step)
    assert not (fake.layout.root / "iter_2").exists()
    rows = fake.status(capsys)
    assert {row["state"] for row in rows.values()} == {"published", "left out"}
    assert {rows[step]["state"] for step in left_out} == {"left out"}
    assert "stopped after iteration 1: nobody wins" in fake.layout.report.read_text()
    assert fake.command("resume") == 0
    assert fake.submitted() == submitted  # nothing is left to do


def test_a_second_submission_is_refused_and_a_cancelled_run_is_resumed(fake, expected, capsys):
    fake.behave(iter_1__build_pairs="wait")
    assert fake.submit() == 0
    job = fake.wait_for("iter_1.build_pairs")
    fake.slurm.run("scontrol", "update", f"jobid={job}", "comment=the site's own")
    for again in (fake.submit, lambda: fake.command("resume")):
        capsys.readouterr()
        assert again() == 2
        error = capsys.readouterr().err
        assert f"Slurm jobs {job}," in error
        assert "nemo-sspo cancel" in error
    states = {name: row["state"] for name, row in fake.status(capsys).items()}
    assert states["iter_1.build_pairs"] == "running"
    assert states[TRAIN] == "queued"
    assert states[SHARD_1] == "published"
    assert fake.command("cancel") == 0
    assert live_jobs(fake.layout.root) == []
    wait_until(lambda: not stages_of(fake), 15, "the end of the cancelled stages")
    assert fake.history("iter_1.build_pairs") == ["start", "stopped"]
    row = fake.status(capsys)["iter_1.build_pairs"]
    assert (row["state"], row["detail"].partition(":")[0]) == ("failed", "cancelled")
    done = len(fake.submitted())
    assert fake.command("resume") == 0
    fake.wait()
    assert fake.submitted()[done:] == ALL_JOBS[ALL_JOBS.index("iter_1.build_pairs") :]
    assert fake.digests() == expected


def stages_of(fake):
    return [pid for pid in processes_in(fake.layout.root) if "tests.slurm.fake_stages" in words_of(pid)]


def test_a_failing_step_cancels_what_depends_on_it_and_says_what_to_do(fake, expected, capsys):
    """One shard's rollout is refused, the other's score crashes as often as it may."""
    fake.behave(iter_1__rollout__00000="refuse!", iter_1__score__00001="crash!")
    assert fake.submit("cluster.retries=1") == 0
    fake.wait()
    assert fake.history(SHARD_0) == ["start", "gave_up"]
    assert fake.events(SHARD_0)[-1].code == 2
    assert fake.history("iter_1.score.00000") == fake.history("iter_1.embed.00000") == []
    assert fake.history("iter_1.score.00001") == ["start", "crashed", "start", "gave_up"]
    assert fake.history("iter_1.build_pairs") == fake.history(TRAIN) == []
    assert fake.history("report") == ["start", "finished"]
    assert f"Failed: {SHARD_0}" in fake.layout.report.read_text()  # drawn too, and once more at the run's end
    assert fake.status(capsys)["report"]["state"] == "missing"
    assert fake.is_published("embed", 1, 1)
    log = fake.log(SHARD_0)
    assert "error: prompts.jsonl line 3: not JSON" in log
    assert f"error: {SHARD_0} cannot run" in log
    assert "nemo-sspo resume" in log
    rows = fake.status(capsys)
    assert (rows[SHARD_0]["state"], rows[TRAIN]["state"]) == ("failed", "missing")
    assert rows[SHARD_0]["detail"].startswith("wrong input: ")
    assert rows["iter_1.score.00001"]["restarts"] == 1
    assert fake.command("status") == 0
    assert "once the cause is gone, `nemo-sspo resume" in capsys.readouterr().out
    fake.stop_misbehaving()
    done = len(fake.submitted())
    assert fake.command("resume") == 0
    fake.wait()
    parts = ["iter_1.rollout", "iter_1.score", "iter_1.score", "iter_1.embed"]  # shard 1 has been sampled already
    assert fake.submitted()[done:] == [*parts, *ALL_JOBS[ALL_JOBS.index("iter_1.build_pairs") :]]
    assert fake.digests() == expected


def test_gpus_and_ranks_are_slurms(fake):
    """Two nodes of two GPUs: one task per rank, and each process sees the GPUs that Slurm gave its job."""
    cluster = ("gpus_per_node=2", "ranks_per_node=null", "launcher=srun", "gpu_type=h100")
    layout = ("parallel.tensor=2", "parallel.pipeline=1", "parallel.data=2", "train.micro_batch_size=1")
    assert fake.submit(*(f"cluster.{setting}" for setting in cluster), *layout) == 0
    fake.wait()
    assert fake.is_published("evaluate")
    ranks = [fake.seen(TRAIN, task) for task in range(4)]
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["NODE_RANK"]) for rank in ranks] == [
        (str(rank), str(rank % 2), str(rank // 2)) for rank in range(4)
    ]
    assert {(rank["WORLD_SIZE"], rank["LOCAL_WORLD_SIZE"]) for rank in ranks} == {("4", "2")}
    assert all(len(rank["CUDA_VISIBLE_DEVICES"].split(",")) == 2 for rank in ranks)
    assert all(rank["SLURM_NTASKS"] is None for rank in ranks)
    assert len(fake.seen(SHARD_0, 0)["CUDA_VISIBLE_DEVICES"].split(",")) == 1
    assert fake.seen("iter_1.build_pairs", 0)["CUDA_VISIBLE_DEVICES"] == ""
