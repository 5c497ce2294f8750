"""A run that can start: overrides over fake stages."""

import pytest

from nemo_sspo.launch.checks import environments
from nemo_sspo.launch.local import runner
from tests.launch import ready_run
from tests.launch.conftest import REPOSITORY
from tests.launch.fake_run import fake_command


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Overrides of a run that can start, over fake stages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(environments, "STAGE_PACKAGES", {"train": ("json",), "rollout": ("json",)})
    monkeypatch.setattr(environments, "LAYERS_PACKAGE", "json")
    monkeypatch.setattr(runner, "stage_command", fake_command)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    ready_run.write(tmp_path)
    return ["experiment=quickstart", *ready_run.OVERRIDES, "iterations=1"]
