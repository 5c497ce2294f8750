"""What the tests of the launcher share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_sspo.launch.checks import environments
from tests.launch import ready_run
from tests.launch.slurm import stand_in

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Steps find the repository's packages wherever the test stands."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.fixture
def eight_gpus(tmp_path_factory, monkeypatch):
    """A machine with eight GPUs, as far as files tell; CUDA_VISIBLE_DEVICES is the test's."""
    folder = tmp_path_factory.mktemp("dev")
    for number in range(8):
        (folder / f"nvidia{number}").touch()
    monkeypatch.setattr("nemo_sspo.visible_gpus.DEVICES", folder)


@pytest.fixture
def driver():
    """Start `tests.launch.fake_run` as a process; it and what is left of it end with the test."""
    started = []

    def start(runs: Path, name: str, *overrides: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.launch.fake_run", str(runs), name, *overrides]
        started.append(subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with everything a run needs, and environments that have every package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environments, "STAGE_PACKAGES", {"train": ("json",), "rollout": ("json",)})
    ready_run.write(tmp_path)
    return tmp_path


@pytest.fixture
def slurm(place, monkeypatch):
    """Overrides of a run in an empty directory, on a machine with stand-ins for three of Slurm's commands."""
    stand_in.install(place)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return ["experiment=quickstart", "cluster=slurm_cpu", *ready_run.OVERRIDES, "iterations=1", "rollout.shards=3"]
