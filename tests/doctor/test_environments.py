"""An environment is asked in a process of its own: what it has, what of it does not load, and what hangs."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nemo_sspo.config.environments import Environment
from nemo_sspo.doctor import environments
from nemo_sspo.doctor.environments import look_at, usable, with_earlier
from nemo_sspo.launch.checks import environments as check_environments

HERE = Environment(python=sys.executable)


@pytest.fixture(autouse=True)
def _needs_little(monkeypatch):
    monkeypatch.setattr(check_environments, "STAGE_PACKAGES", {"train": ("json",), "rollout": ("no_such_package",)})


def facts(train: Environment = HERE):
    return look_at(SimpleNamespace(cluster=SimpleNamespace(train=train, rollout=HERE)))


def with_torch(folder, source: str) -> Environment:
    """This environment with a module of the name torch that says `source`."""
    (folder / "torch.py").write_text(source)
    return Environment(python=sys.executable, variables={"PYTHONPATH": str(folder)})


def test_what_is_missing_is_a_problem_of_that_environment(tmp_path):
    found = facts(with_torch(tmp_path, "raise ImportError('libcudart.so.12: no such file')"))
    assert usable(found) == {"train"}
    assert "lacks no_such_package" in found["rollout"]["problem"]
    assert found["train"]["broken"] == {"torch": "ImportError: libcudart.so.12: no such file"}
    assert found["train"]["versions"]["python"].startswith("3.")


def test_an_environment_of_another_image_is_known_from_the_call_there(tmp_path):
    file, good = tmp_path / "environments.json", {"versions": {}, "broken": {}}
    absent = {"problem": "lacks vllm"}
    assert with_earlier({"train": good, "rollout": absent}, file)["rollout"] == absent
    file.write_text(json.dumps({"train": absent, "rollout": good | {"gpus": []}}))
    assert with_earlier({"train": good, "rollout": absent}, file) == {"train": good, "rollout": good | {"gpus": []}}


def test_an_import_that_waits_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "PROBE_SECONDS", 1)
    found = facts(with_torch(tmp_path, "import time; time.sleep(60)"))
    assert "the lock of a compilation" in found["train"]["problem"]


def test_an_interpreter_that_is_not_there(tmp_path):
    assert "no such interpreter" in facts(Environment(python=str(tmp_path / "python")))["train"]["problem"]


def test_the_training_environments_own_versions_are_supported():
    pytest.importorskip("megatron.core")
    command = [sys.executable, "-m", "nemo_sspo.doctor.probe", "train"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["broken"] == {}
    assert {"torch", "megatron-core", "nemo-toolkit"} <= found["versions"].keys()
