"""The name under which an engine loads its policy: constant over iterations, never another policy's."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nemo_sspo.rollout import policy_link
from nemo_sspo.rollout.policy_link import constant_name

_HOLD = """
import sys, tempfile
from pathlib import Path
tempfile.tempdir = sys.argv[1]
from nemo_sspo.rollout.policy_link import constant_name
print(constant_name(Path(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()


def engine(folder: Path, policy: str) -> tuple[subprocess.Popen[str], Path]:
    """Another process that loads a policy, and the name it has for it."""
    command = [sys.executable, "-c", _HOLD, str(folder), str(folder / policy)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_next_iterations_policy_takes_over_the_name_when_the_engine_is_gone(tmp_path: Path) -> None:
    process, name = engine(tmp_path, "first")
    assert name.resolve() == tmp_path / "first"
    process.communicate()
    assert constant_name(tmp_path / "second") == name
    assert name.resolve() == tmp_path / "second"


def test_engines_of_one_policy_share_a_name_and_those_of_another_have_their_own(tmp_path: Path) -> None:
    process, name = engine(tmp_path, "first")
    assert constant_name(tmp_path / "first") == name
    other = constant_name(tmp_path / "second")
    assert other != name
    assert (name.resolve(), other.resolve()) == (tmp_path / "first", tmp_path / "second")
    process.communicate()


def test_where_all_names_are_in_use_a_policy_keeps_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_link, "NAMES", 1)
    process, _ = engine(tmp_path, "first")
    assert constant_name(tmp_path / "second") == tmp_path / "second"
    process.communicate()


def test_vllm_takes_two_policies_of_one_name_for_the_same_to_compile(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by their own paths for two."""
    arg_utils = pytest.importorskip("vllm.engine.arg_utils")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def key(path: Path) -> str:
        arguments = arg_utils.EngineArgs(model=str(path), max_model_len=64, dtype="float32")
        return arguments.create_model_config().compute_hash()

    copies = [tmp_path / f"iter_{number}" for number in (1, 2)]
    for copy in copies:
        copy.mkdir()
        for file in policy.iterdir():
            (copy / file.name).symlink_to(file)
    assert key(copies[0]) != key(copies[1])
    keys = set()
    for copy in copies:
        process, name = engine(tmp_path, copy.name)
        keys.add(key(name))
        process.communicate()
    assert len(keys) == 1
