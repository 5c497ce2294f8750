"""What publishing and locking rely on: each lack of a file system fails under its own name, and nothing is left."""

import errno
import fcntl
import os

import pytest

from nemo_sspo.doctor.host import file_system as module
from nemo_sspo.doctor.host import folders
from nemo_sspo.doctor.host.file_system import file_system_checks
from nemo_sspo.doctor.host.folders import file_system
from tests.doctor.by_name import by_name, wrong


@pytest.fixture(autouse=True)
def mounts(monkeypatch, tmp_path):
    """A shared file system, at first."""
    file = tmp_path.parent / "mountinfo"

    def say(kind: str) -> None:
        lines = ("1 0 8:1 / / rw - ext4 /dev/root rw", f"2 1 0:9 / {tmp_path} rw,noatime shared:1 - {kind} server rw")
        file.write_text("\n".join(lines) + "\n")

    say("lustre")
    monkeypatch.setattr(folders, "MOUNTS", file)
    return say


def checks(folder, *, many_nodes=True):
    return file_system_checks(folder / "runs", many_nodes=many_nodes)


def test_a_sound_file_system(tmp_path):
    assert wrong(checks(tmp_path)) == []
    assert by_name(checks(tmp_path))["file system"].measured == "lustre"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_of_one_node_is_told_to_a_cluster_only(tmp_path, mounts):
    mounts("xfs")
    assert wrong(checks(tmp_path)) == [("file system", "warning")]
    assert wrong(checks(tmp_path, many_nodes=False)) == []
    mounts("tmpfs")
    assert wrong(checks(tmp_path, many_nodes=False)) == [("file system", "warning")]


def test_the_innermost_mount_counts(tmp_path):
    assert file_system(tmp_path / "runs") == "lustre"
    assert file_system(tmp_path.parent) == "ext4"


def test_locks_that_are_refused_or_mean_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = by_name(checks(tmp_path))["locks"]
    assert (found.verdict, found.measured) == ("failed", "Function not implemented")
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert by_name(checks(tmp_path))["locks"].measured == "held twice"


def test_a_rename_that_leaves_the_older_file(tmp_path, monkeypatch):
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: os.path.exists(target) or real(source, target))
    assert wrong(checks(tmp_path)) == [("publishing", "failed")]


def test_a_slow_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.0)
    assert wrong(checks(tmp_path)) == [("publishing", "warning")]


def test_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert wrong(checks(tmp_path)) == [("hard links", "warning")]


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refuse)
    assert wrong(checks(tmp_path)) == [("publishing", "failed")]
