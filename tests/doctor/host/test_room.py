"""A disk without bytes or without inodes, and a container's shared memory, fail under their own names."""

import os
from pathlib import Path

import pytest

from nemo_sspo.doctor.host import room
from nemo_sspo.doctor.host.room import room_checks
from tests.doctor.by_name import by_name, wrong

BLOCK = 4096


def disk(*, free_gib=100.0, files=10_000_000, free_files=9_000_000):
    blocks = int(free_gib * 2**30 / BLOCK)
    return os.statvfs_result((BLOCK, BLOCK, 2 * blocks, blocks, blocks, files, free_files, free_files, 0, 255))


@pytest.fixture
def disks(monkeypatch, tmp_path):
    """What statvfs answers, by folder; all have room at first."""
    found = {}
    shared = tmp_path / "shm"
    shared.mkdir()
    monkeypatch.setattr(room, "SHARED_MEMORY", shared)
    monkeypatch.setattr(room, "node_folder", lambda: tmp_path / "node")
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(os, "statvfs", lambda folder: found.get(Path(folder).name, disk()))
    return found


def test_room_everywhere(disks, experiment):
    assert wrong(room_checks(experiment())) == []


def test_a_full_disk(disks, experiment, tmp_path):
    disks[tmp_path.name] = disk(free_gib=0)
    (check,) = [check for check in room_checks(experiment()) if check.verdict != "passed"]
    assert (check.name, check.verdict, check.measured, check.bound) == ("disk", "failed", "0 GiB", ">= 5 GiB free")
    assert "runs_dir=" in check.note


def test_a_disk_with_bytes_and_no_inode_left(disks, experiment, tmp_path):
    disks[tmp_path.name] = disk(free_files=12)
    check = by_name(room_checks(experiment()))["files of the disk"]
    assert (check.verdict, check.measured) == ("failed", "12")
    disks[tmp_path.name] = disk(files=0, free_files=0)  # a file system that does not count them
    assert "files of the disk" not in by_name(room_checks(experiment()))


def test_the_disk_holds_what_the_run_publishes(disks, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "bytes_to_publish", lambda _: 150 * 2**30)
    check = by_name(room_checks(experiment()))["disk"]
    assert (check.verdict, check.bound) == ("failed", ">= 150 GiB free")


def test_a_containers_shared_memory(disks, experiment):
    disks["shm"] = disk(free_gib=0.0625)
    check = by_name(room_checks(experiment()))["shared memory"]
    assert check.verdict == "failed"
    assert "docker run --ipc=host" in check.note
