"""The files of a training state and their digests: written while the files are, verified before they are read.

Megatron's writers hash what they write (`hash_while_writing`), each its own file, in the background where states are
written there, and leave the digest beside it. `seal` collects them into one index. What is read back is compared with
what was meant to be written, so that a bit that flipped on the way to the disk is seen too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from megatron.core.dist_checkpointing.strategies import filesystem_async

from nemo_sspo.artifacts.durable import fsync
from nemo_sspo.artifacts.manifest import digest_of

INDEX = "digests.json"
_BESIDE = ".sha256"


class _Hashed:
    """A file that is written sequentially and hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Hashed:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._file.flush()
            os.fsync(self._file.fileno())  # Megatron's own comes before the last bytes leave Python's buffer
            _write_durably(Path(f"{self._file.name}{_BESIDE}"), self._digest.hexdigest())
        self._file.close()

    def write(self, content: bytes) -> int:
        """Write and hash."""
        self._digest.update(content)
        return self._file.write(content)


def _open_hashed(path: str | Path, mode: str) -> _Hashed:
    return _Hashed(open(path, mode))  # closed by `_Hashed.__exit__`


@contextmanager
def hash_while_writing() -> Iterator[None]:
    """Have Megatron's checkpoint writers, which are forked inside the block, hash what they write."""
    filesystem_async.open = _open_hashed  # in place of the builtin, in that module
    try:
        yield
    finally:
        del filesystem_async.open


def seal(folder: Path) -> None:
    """Write the index of a folder whose files are complete; it is on disk as a whole when this returns."""
    beside = sorted(folder.rglob(f"*{_BESIDE}"))
    with ThreadPoolExecutor() as pool:
        hashed = {
            path.with_name(path.name.removesuffix(_BESIDE)): digest
            for path, digest in zip(beside, pool.map(Path.read_text, beside), strict=True)
        }
    for path in beside:
        path.unlink()
    files: dict[str, dict[str, Any]] = {}
    for path in _files(folder):
        if path not in hashed:
            fsync(path)
        digest = hashed.get(path) or _sha256(path)
        files[path.relative_to(folder).as_posix()] = {"sha256": digest, "size": path.stat().st_size}
    _write_durably(folder / INDEX, _index_text(files))
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        fsync(path)


def damage(folder: Path, *, share: int = 0, shares: int = 1) -> str | None:
    """The first fault in one of `shares` parts of a folder's files; None if there is none.

    The index itself and the names and sizes of all files are looked at for every share. Parts are even in bytes.
    """
    index = folder / INDEX
    if not index.is_file():
        return f"{index}: missing; an earlier release wrote this state, or a copy is not whole"
    text = index.read_bytes().decode(errors="replace")
    try:
        content = json.loads(text)
        files = content["files"]
        sizes = {str(name): int(record["size"]) for name, record in files.items()}
        whole = text == _index_text(files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        return f"{index}: damaged"
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name in sorted({*found, *sizes}):
        if name not in found:
            return f"{folder / name}: missing"
        if name not in sizes:
            return f"{folder / name}: is no file of this state"
        if (size := found[name].stat().st_size) != sizes[name]:
            return f"{folder / name}: {size} bytes in place of {sizes[name]}"
    for name in even_shares(sizes, shares)[share]:
        try:
            differs = _sha256(folder / name) != files[name]["sha256"]
        except OSError as error:
            return f"{folder / name}: cannot be read ({error.strerror})"
        if differs:
            return f"{folder / name}: differs from its digest"
    return None


def _index_text(files: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"files": files, "sha256": digest_of(files)}, indent=1) + "\n"


def even_shares(sizes: dict[str, int], shares: int) -> list[list[str]]:
    """Names in parts of about equal bytes: the largest first, each to the smallest part so far."""
    parts: list[list[str]] = [[] for _ in range(shares)]
    loads = [0] * shares
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        parts[least].append(name)
        loads[least] += sizes[name]
    return parts


def _files(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / INDEX)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
