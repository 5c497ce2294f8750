"""A job's script under bash with programs in srun's and scontrol's place: what it does when things end badly."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.sbatch import RunPaths, environment_text, render
from tests.waiting import wait_until

STEP = "iter_1.train"
INTERRUPTED = 85


class Script:
    """The rendered script of a job, for its first task, and what it recorded."""

    def __init__(self, folder: Path, name: str = STEP, *overrides: str) -> None:
        given = ["experiment=llama3-8b", "prompts=p", "cluster=slurm_modules", "iterations=1", *overrides]
        experiment = load_experiment(given)
        job = next(job for job in jobs(experiment) if job.name == name)
        environment = job.environment.model_copy(update={"modules": (), "setup_file": None})
        job = type(job)(**{**job.__dict__, "environment": environment})
        self._place = RunPaths(folder / "run", folder)
        self._programs = folder / "programs"
        for path in (self._place.run / "logs", self._place.state / "attempts", self._programs):
            path.mkdir(parents=True)
        self._place.environment_file(job.environment_name).write_text(environment_text({}))
        self._step = job.shard_batches[0][0].step_id
        self._script = folder / "job.sbatch"
        self._script.write_text(render(job, experiment.cluster, self._place, experiment.name))

    def program(self, name: str, lines: str) -> None:
        """Put a shell script in a program's place."""
        path = self._programs / name
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(0o755)

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """The script as slurmd starts it."""
        path = f"{self._programs}:{os.environ['PATH']}"
        return subprocess.Popen(["bash", str(self._script)], env={"PATH": path, "SLURM_JOB_ID": "7", **variables})

    def events(self) -> list[str]:
        """What it recorded."""
        lines = self._place.attempts(self._step).read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]

    def log(self) -> str:
        """What its first attempt printed."""
        return (self._place.run / "logs" / f"{self._step}.7.0.log").read_text()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_a_job_that_ends_while_it_is_queued_again_did_not_give_up(script: Script) -> None:
    """Slurm's SIGTERM for the requeued job reaches scontrol before its answer does."""
    script.program("srun", f"exit {INTERRUPTED}")
    script.program("scontrol", "kill -TERM $$; exit 0")
    assert script.start().wait(30) == 0
    assert script.events() == ["start", "interrupted"]


def test_a_refused_requeue_is_the_end(script: Script) -> None:
    script.program("srun", f"exit {INTERRUPTED}")
    script.program("scontrol", "exit 1")
    assert script.start().wait(30) == INTERRUPTED
    assert script.events() == ["start", "interrupted", "gave_up"]


def test_a_cancelled_job_is_not_queued_again_when_srun_ends_first(script: Script, tmp_path: Path) -> None:
    """scancel signals every node: srun may have ended before the script on the first node hears of it."""
    script.program("srun", "exit 143")
    script.program("sleep", f"touch {tmp_path}/waits; exec /bin/sleep 1")
    script.program("scontrol", f"touch {tmp_path}/requeued")
    process = script.start()
    wait_until((tmp_path / "waits").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert script.events() == ["start", "stopped"]
    assert not (tmp_path / "requeued").exists()


NEAR, FAR = 300 + 50, 300 + 90
"""Seconds to the time limit when the signal comes, which is sent 300 s before it and up to 60 s early."""
SHARD_0, SHARD_1 = (f"iter_1/rollout/shard_0000{shard}/manifest.json" for shard in (0, 1))


@pytest.mark.parametrize(
    ("before", "during", "seconds", "end"),
    [
        ("", "", NEAR, "gave_up"),
        (SHARD_0, "", NEAR, "gave_up"),  # an earlier attempt's
        ("", "iter_1/rollout/shard_00002/manifest.json", NEAR, "gave_up"),  # the next task's
        ("", SHARD_0, NEAR, "interrupted"),
        (SHARD_0, SHARD_1, NEAR, "interrupted"),
        ("", "judgements/iter_1.rollout.00001.jsonl", NEAR, "interrupted"),
        ("", "", FAR, "interrupted"),  # a preemption
        ("", "", None, "interrupted"),  # as far from the limit of 20 minutes, which this Slurm does not tell
    ],
)
def test_a_task_that_its_time_limit_ends_with_nothing_done_is_not_tried_again(
    tmp_path: Path, before: str, during: str, seconds: int | None, end: str
) -> None:
    script = Script(tmp_path, "iter_1.rollout", "cluster.shards_per_task=2", "cluster.stages.rollout.time='20'")
    for path in filter(None, (before, during)):
        (tmp_path / "run" / path).parent.mkdir(parents=True)
    if before:
        (tmp_path / "run" / before).write_text("earlier")
    works = f"echo now >{tmp_path}/run/{during}" if during else ":"
    script.program("srun", f"{works}; touch {tmp_path}/works; exec sleep 30")
    script.program("scontrol", "exit 0")
    process = script.start(**{} if seconds is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + seconds)})
    wait_until((tmp_path / "works").exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == (2 if end == "gave_up" else 0)
    assert script.events() == ["start", end]
    error = "does not fit in time=20: raise cluster.stages.rollout.time, or rollout.shards of a new run; Slurm cancels"
    assert (error in script.log()) == (end == "gave_up")


def test_the_limit_of_the_plan_counts_where_slurm_does_not_tell_its_own(tmp_path: Path) -> None:
    script = Script(tmp_path, "iter_1.rollout", "cluster.stages.rollout.time='6'")
    script.program("srun", f"touch {tmp_path}/works; exec sleep 30")
    process = script.start()
    wait_until((tmp_path / "works").exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 2
    assert script.events() == ["start", "gave_up"]


def test_training_that_its_time_limit_ends_goes_on_from_its_state(script: Script, tmp_path: Path) -> None:
    script.program("srun", f"trap 'exit {INTERRUPTED}' USR1; touch {tmp_path}/works; sleep 30 & wait")
    script.program("scontrol", "exit 0")
    process = script.start(SLURM_JOB_END_TIME=str(int(time.time()) + NEAR))
    wait_until((tmp_path / "works").exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 0
    assert script.events() == ["start", "interrupted"]
