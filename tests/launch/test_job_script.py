"""A job's script under bash with programs in srun's and scontrol's place: what it does when things end badly."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.jobs import jobs
from nemo_sspo.launch.sbatch import Place, environment_text, render

STEP = "iter_1.train"
INTERRUPTED = 85


class Script:
    """The rendered script of a training job, and what it recorded."""

    def __init__(self, folder: Path) -> None:
        experiment = load_experiment(["experiment=llama3-8b", "prompts=p", "cluster=slurm_modules", "iterations=1"])
        job = next(job for job in jobs(experiment) if job.name == STEP)
        environment = job.environment.model_copy(update={"modules": (), "setup_file": None})
        job = type(job)(**{**job.__dict__, "environment": environment})
        self._place = Place(folder / "run", folder)
        self._programs = folder / "programs"
        for path in (self._place.run / "logs", self._place.state / "attempts", self._programs):
            path.mkdir(parents=True)
        self._place.environment_file("train").write_text(environment_text({}))
        self._script = folder / "train.sbatch"
        self._script.write_text(render(job, experiment.cluster, self._place, experiment.name))

    def program(self, name: str, lines: str) -> None:
        """Put a shell script in a program's place."""
        path = self._programs / name
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(0o755)

    def start(self) -> subprocess.Popen[bytes]:
        """The script as slurmd starts it."""
        path = f"{self._programs}:{os.environ['PATH']}"
        return subprocess.Popen(["bash", str(self._script)], env={"PATH": path, "SLURM_JOB_ID": "7"})

    def events(self) -> list[str]:
        """What it recorded."""
        lines = (self._place.state / "attempts" / f"{STEP}.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]


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
    script.program("srun", f"touch {tmp_path}/ended; exit 143")
    script.program("scontrol", f"touch {tmp_path}/requeued")
    process = script.start()
    while not (tmp_path / "ended").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert script.events() == ["start", "stopped"]
    assert not (tmp_path / "requeued").exists()
