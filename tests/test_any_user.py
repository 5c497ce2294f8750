"""The images run as any user (`docs/images.md`): also as a user id that has no name, no home directory and no HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nemo_sspo.stages.runner.importable import Kind
from tests.launch import ready_run

ROOT = Path(__file__).parents[1]
NAMELESS = 54321
# It may read whatever is there, as in an image, wherever this machine's Python lies; and write what is its own.
READ_ALL = "+dac_read_search"
AS_NAMELESS = [
    *("setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"),
    *(f"--inh-caps={READ_ALL}", f"--ambient-caps={READ_ALL}"),
]


def may_become_another() -> bool:
    try:
        return os.getuid() == 0 and subprocess.run([*AS_NAMELESS, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not may_become_another(), reason="needs root, and util-linux's setpriv")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of that user's, which it reaches: pytest's own are root's alone."""
    with TemporaryDirectory() as name:
        os.chown(name, NAMELESS, NAMELESS)
        yield Path(name)


@pytest.fixture
def nameless(folder: Path) -> Callable[..., str]:
    """Run this Python with arguments as that user, in a folder of its own; what it prints."""
    variables = {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}

    def run(*arguments: str, **more: str) -> str:
        command = [*AS_NAMELESS, sys.executable, *arguments]
        done = subprocess.run(command, env=variables | more, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_it_is_nobody_here(nameless: Callable[..., str]) -> None:
    with pytest.raises(AssertionError, match="Could not determine home directory"):
        nameless("-c", "from pathlib import Path; Path.home()")


@pytest.mark.parametrize(("kind", "package"), [("train", "megatron-core"), ("rollout", "vllm")])
@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}], ids=["no HOME", "a HOME that is not there"])
def test_everything_that_a_stage_imports_loads(
    nameless: Callable[..., str], kind: Kind, package: str, home: dict[str, str]
) -> None:
    facts = json.loads(nameless("-m", "nemo_sspo.doctor.probe", kind, **home).splitlines()[-1])
    if not any(name.startswith(package) for name in facts["versions"]):
        pytest.skip(f"no {package} in this environment")
    assert facts["broken"] == {}


def test_a_dry_run_finds_everything_in_order(nameless: Callable[..., str], folder: Path) -> None:
    ready_run.write(folder)
    python = folder / "python"  # one that it may start by the file's mode: what it may read does not count there
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    here = [f"cluster.{kind}.python={python}" for kind in ("train", "rollout")]
    found = json.loads(nameless("-c", _FOUND, *here).splitlines()[-1])
    assert [line for line in found if "lacks" not in line] == []  # what the other environment has


def test_the_doctor_answers(nameless: Callable[..., str], folder: Path) -> None:
    ready_run.write(folder)
    here = [f"cluster.{kind}.python={sys.executable}" for kind in ("train", "rollout")]
    found = json.loads(nameless("-c", _DOCTOR, *here))
    assert "locks of extensions" in {check["name"] for check in found["checks"]}


_DOCTOR = (
    "import sys; from nemo_sspo import cli; cli.main(['doctor', 'experiment=quickstart', '--json', *sys.argv[1:]])"
)
_FOUND = "import json, sys; from tests.launch import ready_run; print(json.dumps(ready_run.found(*sys.argv[1:])))"
