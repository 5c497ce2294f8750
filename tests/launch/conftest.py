"""What the tests of the launcher share."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def wait_until(condition, seconds: float = 20.0) -> None:
    """Poll `condition` until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
