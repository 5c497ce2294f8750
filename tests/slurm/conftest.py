"""One cluster for all tests of this folder; skipped, with the reason, where Slurm cannot be started."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch import tiny_encoder
from tests.slurm.cluster import REPOSITORY, SlurmCluster, missing
from tests.slurm.driver import SlurmRun

_STAND_IN = """#!/bin/bash
# Stands for the interpreter of a cluster: what would be a stage is a fake one, and no package is missing.
if [[ $1 == -c ]]; then echo '{{"missing": [], "no_cuda": false, "problems": []}}'; exit; fi
if [[ $1 == -m && $2 == nemo_sspo.stages ]]; then shift 2; set -- -m tests.slurm.fake_stages "$@"; fi
exec {python} "$@"
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """The running cluster."""
    if reason := missing():
        pytest.skip(f"Slurm: {reason}")
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()


@pytest.fixture
def on_cluster(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """This process, and what it submits, belong to the cluster."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm.environment[name])
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(REPOSITORY)
    return slurm


@pytest.fixture
def fake(on_cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRun]:
    """A run whose stages are fake ones; jobs that are left of it are cancelled."""
    interpreter = tmp_path / "python"
    interpreter.write_text(_STAND_IN.format(python=sys.executable))
    interpreter.chmod(0o755)
    tiny_encoder.write(tmp_path / "encoder")
    monkeypatch.setenv("TINY_ENCODER", str(tmp_path / "encoder"))
    monkeypatch.setenv("FAKE_BEHAVIOUR", str(tmp_path / "behaviour"))
    (tmp_path / "behaviour").mkdir()
    overrides = (
        f"cluster.train.python='{interpreter}'",
        f"cluster.rollout.python='{interpreter}'",
        "encoder.path=package:tests.launch.tiny_encoder",
    )
    root = tmp_path / "runs with a 'blank'" / "fake"
    run = SlurmRun(on_cluster, root, overrides, tmp_path / "behaviour")
    yield run
    run.cancel()
    on_cluster.regain_nodes()
