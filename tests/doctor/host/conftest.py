"""Programs in the place of a site's own, and a run for whose needs is looked."""

import pytest

from nemo_sspo.config.load import load_experiment


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script of a name at the head of the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


@pytest.fixture
def experiment(tmp_path):
    """The quickstart below a temporary directory, with further settings."""

    def load(*overrides: str):
        return load_experiment(["experiment=quickstart", f"runs_dir={tmp_path}/runs", *overrides])

    return load
