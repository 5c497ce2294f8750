"""Locks that nobody holds any more are found in every cache, and those in use are let be."""

import os
import time

import pytest

from nemo_sspo.artifacts import node_folder as module
from nemo_sspo.doctor.host.extensions import extension_checks
from nemo_sspo.stages.runner.torch_extensions import ABANDONED_SECONDS
from tests.doctor.by_name import by_name, wrong


@pytest.fixture(autouse=True)
def node(monkeypatch, tmp_path):
    """This node's folder and home are empty."""
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    return tmp_path / "tmp" / f"nemo-sspo-{os.getuid()}"


def lock(folder, age=2 * ABANDONED_SECONDS):
    folder.mkdir(parents=True)
    path = folder / "lock"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_no_lock(experiment):
    assert wrong(extension_checks(experiment())) == []


def test_a_stale_lock_in_every_cache(node, experiment, tmp_path):
    places = (
        node / "torch_extensions" / "cpython-311-torch-2.9.1" / "fused",
        tmp_path / "cache" / "torch_extensions" / "py311_cu128" / "fused",
        tmp_path / "site" / "fused",
    )
    stale = [lock(place) for place in places]
    site = experiment(f"+cluster.train.variables.TORCH_EXTENSIONS_DIR={tmp_path}/site")
    check = by_name(extension_checks(site))["locks of extensions"]
    assert (check.verdict, check.measured) == ("failed", "3 stale")
    assert all(str(path) in check.note for path in stale)


def test_a_lock_that_is_held_or_young_is_let_be(node, experiment):
    folder = node / "torch_extensions" / "cpython-311-torch-2.9.1"
    lock(folder / "young", age=1)
    with lock(folder / "held").open():
        assert wrong(extension_checks(experiment())) == []


def test_a_folder_of_another_user(node, experiment, monkeypatch):
    node.mkdir(parents=True)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid)
    node.rename(node.with_name("elsewhere"))
    node.symlink_to(node.with_name("elsewhere"))
    assert wrong(extension_checks(experiment())) == [("compiled extensions", "failed")]


def test_a_folder_from_which_nothing_can_be_loaded(node, experiment, monkeypatch):
    real = os.statvfs(node.parents[1])
    fields = [*real[:8], os.ST_NOEXEC, real[9]]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert wrong(extension_checks(experiment())) == [("compiled extensions", "failed")]
