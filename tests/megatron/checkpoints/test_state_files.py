"""The digests of a training state: whatever happens to any of its files is seen."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

from megatron.core.dist_checkpointing.strategies import filesystem_async

from nemo_sspo.megatron.checkpoints import state_files
from nemo_sspo.megatron.checkpoints.state_files import INDEX, damage, hash_while_writing, seal


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Three files that their writers hashed and one that they did not, sealed."""
    folder = tmp_path / "step_3"
    (folder / "weights").mkdir(parents=True)
    with hash_while_writing():
        for number in range(3):
            with filesystem_async.open(folder / "weights" / f"__{number}_0.distcp", "wb") as file:
                for part in (b"tensor", bytes(9_000 * number), memoryview(b"end")):
                    assert file.tell() >= 0
                    file.write(part)
    (folder / "common.pt").write_bytes(b"common")
    seal(folder)
    return folder


def names(state: Path) -> list[str]:
    return sorted(path.relative_to(state).as_posix() for path in state.rglob("*") if path.is_file())


def test_a_state_as_it_was_written_is_whole_and_holds_no_other_files(state: Path) -> None:
    assert damage(state) is None
    weights = [f"weights/__{number}_0.distcp" for number in range(3)]
    assert names(state) == ["common.pt", INDEX, *weights]
    assert not hasattr(filesystem_async, "open")  # other checkpoints are written as they always were


def test_a_bit_that_flips_in_any_file_is_seen_by_exactly_one_share(state: Path) -> None:
    for name in names(state):
        path = state / name
        content = bytearray(path.read_bytes())
        for position in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            found = [damage(state, share=share, shares=3) for share in range(3)]
            if name == INDEX:
                assert set(found) == {f"{path}: damaged"}
            else:
                assert sorted(filter(None, found)) == [f"{path}: differs from its digest"]
        path.write_bytes(content)
    assert damage(state) is None


def test_torn_missing_and_extra_files_are_named(state: Path) -> None:
    first, extra = state / "weights" / "__0_0.distcp", state / "weights" / "__7_0.distcp"
    content = first.read_bytes()
    os.truncate(first, 5)
    assert damage(state, share=1, shares=2) == f"{first}: 5 bytes in place of {len(content)}"
    first.unlink()
    assert damage(state) == f"{first}: missing"
    first.write_bytes(content)
    extra.touch()
    assert damage(state) == f"{extra}: is no file of this state"
    extra.unlink()
    (state / INDEX).unlink()
    assert damage(state) == f"{state / INDEX}: missing; an earlier release wrote this state, or a copy is not whole"


def test_what_is_compared_is_what_was_meant_to_be_written(tmp_path: Path) -> None:
    """A bit that flips on its way to the disk is no part of the digest."""
    with hash_while_writing(), filesystem_async.open(tmp_path / "file", "wb") as file:
        file.write(b"meant")
    (tmp_path / "file").write_bytes(b"neant")
    assert (tmp_path / "file.sha256").read_text() == hashlib.sha256(b"meant").hexdigest()
    seal(tmp_path)
    assert damage(tmp_path) == f"{tmp_path / 'file'}: differs from its digest"


def test_everything_is_on_disk_before_the_index_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd))
    )
    with hash_while_writing(), filesystem_async.open(tmp_path / "a.distcp", "wb") as file:
        file.write(b"x")
    (tmp_path / "common.pt").write_bytes(b"common")
    seal(tmp_path)
    order = [synced.index(name) for name in ("a.distcp", "common.pt", INDEX, tmp_path.name)]
    assert order == sorted(order)


def test_shares_are_even_in_bytes() -> None:
    sizes = {f"{number}": 10 + number for number in range(64)}
    parts = state_files.even_shares(sizes, 8)
    assert sorted(name for part in parts for name in part) == sorted(sizes)
    loads = [sum(sizes[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= 10
