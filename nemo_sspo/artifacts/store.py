"""Publish atomically: an artifact's directory gets its final name only once it is complete.

Small files are verified by hash whenever an artifact is opened. Files above `HASH_ON_OPEN_BYTES` (weights) are verified
by size then, and by hash when asked for: a 70B checkpoint is opened by hundreds of ranks.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nemo_sspo import __version__
from nemo_sspo.artifacts.changes import changes
from nemo_sspo.artifacts.durable import fsync, full_disk_line
from nemo_sspo.artifacts.facts.base import Facts, SomeFacts
from nemo_sspo.artifacts.layout import VOLATILE
from nemo_sspo.artifacts.manifest import (
    MANIFEST_NAME,
    FileRecord,
    InputRecord,
    Manifest,
    read_manifest_file,
    step_of,
)
from nemo_sspo.artifacts.removed import removed_files
from nemo_sspo.artifacts.software import software_versions
from nemo_sspo.errors import UserError, one_line

HASH_ON_OPEN_BYTES = 64 * 2**20
FULL_DISK_BYTES = 2**20


@dataclass(frozen=True)
class Artifact:
    """A published directory and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def step_id(self) -> str:
        """Name of the step that made it."""
        return step_of(self.path, self.manifest)

    @property
    def record(self) -> InputRecord:
        """How the manifests of what is made from it name it."""
        return InputRecord(step=self.step_id, digest=self.manifest.digest)

    def facts(self, kind: type[SomeFacts]) -> SomeFacts:
        """What its stage reported; raises UserError when a fact is of another type than `kind` says."""
        return kind.of(self.manifest.counts, self.path / MANIFEST_NAME)

    def file(self, name: str) -> Path:
        """Path of a file or subfolder that the artifact must hold."""
        path = self.path / name
        if not path.exists():
            raise UserError(f"{self.path}: no {name} in this {self.manifest.stage} artifact")
        return path


@dataclass
class Draft:
    """An artifact in the making: write files below `path`, what they determine into `facts`, seconds and rates into
    `timings`, and remarks for readers of the manifest into `notes`."""

    path: Path
    rows: int = 0
    facts: Facts | None = None
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def draft_path(final: Path, attempt: str) -> Path:
    """Hidden sibling of `final` that one attempt writes into; ranks of one attempt share it."""
    return final.with_name(f".{final.name}.{attempt}.tmp")


@contextmanager
def publish(
    final: Path,
    *,
    stage: str,
    iteration: int = 0,
    shard: int = 0,
    config: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Artifact]],
    knobs: Mapping[str, Any] | None = None,
    rounding: Set[str] = frozenset(),
    attempt: str | None = None,
) -> Iterator[Draft]:
    """Yield a draft; on a clean exit hash its files, write the manifest and rename it to `final`.

    On an exception the draft is removed and nothing becomes visible; a full disk is a UserError. When another attempt
    published `final` in the meantime, that one stays and this draft is discarded: equal steps have equal content.
    """
    draft = Draft(draft_path(final, attempt or uuid4().hex))
    shutil.rmtree(draft.path, ignore_errors=True)
    draft.path.mkdir(parents=True, exist_ok=True)  # another rank may have been quicker
    started = datetime.now(UTC)
    try:
        yield draft
        draft.timings.setdefault("seconds", (datetime.now(UTC) - started).total_seconds())
        manifest = Manifest(
            stage=stage,
            iteration=iteration,
            shard=shard,
            config=dict(config),
            knobs=dict(knobs or {}),
            rounding=tuple(key for key in knobs or {} if key in rounding),
            inputs={name: [artifact.record for artifact in group] for name, group in inputs.items()},
            files=_hash_files(draft.path),
            rows=draft.rows,
            counts={} if draft.facts is None else draft.facts.counts(),
            timings=draft.timings,
            code_version=__version__,
            software=software_versions(),
            notes=tuple(draft.notes),
            created_at=started.isoformat(timespec="milliseconds"),
        )
        (draft.path / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
        _fsync_tree(draft.path)
        try:
            os.rename(draft.path, final)
        except OSError:
            if not (final / MANIFEST_NAME).is_file():
                raise
        fsync(final.parent)
    except BaseException as error:  # torch's CheckpointException is no Exception
        told = full_disk_line(error)
        if told is not None or shutil.disk_usage(draft.path).free < FULL_DISK_BYTES:
            # A library's writer may say something else, and a step writes to other disks too: /dev/shm, TMPDIR.
            said = "" if told is None else f" ({one_line(told)})"
            raise UserError(
                f"the disk of {final.parent} is full, or the quota on it: free some space and run again{said}"
            ) from error
        raise
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def discard_drafts(final: Path) -> None:
    """Remove what killed attempts left beside `final`. Only for the holder of the run's lock."""
    if final.parent.is_dir():
        for stale in final.parent.glob(f".{final.name}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)


def is_published(path: Path) -> bool:
    """Whether a complete artifact lies at `path`."""
    return (path / MANIFEST_NAME).is_file()


def open_artifact(path: Path, *, every_hash: bool = False, whole: bool = True) -> Artifact:
    """Open and verify a published artifact.

    Args:
        whole: refuse one that `nemo-sspo clean` has removed files of; without it, what is left is verified.

    Raises:
        UserError: it is missing, its manifest cannot be read, or a file is missing or differs from its record.
    """
    try:
        artifact = Artifact(path, read_manifest_file(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such artifact; run the stage that makes it") from None
    gone = removed_files(path)
    if gone and whole:
        raise UserError(
            f"{path / gone[0]}: `nemo-sspo clean` removed it; `nemo-sspo redo <run> --from {artifact.step_id}` "
            "makes it anew, and what was made from it"
        )
    for name in artifact.manifest.files:
        if name not in gone:
            _verify(artifact, name, every_hash)
    return artifact


def refuse_changes(
    artifact: Artifact,
    config: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Artifact]],
    knobs: Set[str] = frozenset(),
) -> None:
    """Raise a UserError that shows how a published artifact's settings or inputs differ from the run's.

    `knobs`: settings that may differ.
    """
    today = {name: [input_.manifest.digest for input_ in group] for name, group in inputs.items()}
    if differences := changes(artifact.manifest, config, today, knobs):
        raise UserError(
            f"{artifact.path} was made with other settings or inputs: {'; '.join(differences)}. Give the run another "
            "name=..., or have it made anew: `nemo-sspo redo`, or delete that directory where it is no step of the run"
        )


def link_tree(source: Path, target: Path) -> None:
    """A copy of a directory of finished files that shares their blocks where the file system can do that."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _content_files(root: Path) -> list[Path]:
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in files if path.relative_to(root).parts[0] not in (VOLATILE, MANIFEST_NAME))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_files(root: Path) -> dict[str, FileRecord]:
    paths = _content_files(root)
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(_sha256, paths))
    return {
        path.relative_to(root).as_posix(): FileRecord(sha256=digest, size=path.stat().st_size)
        for path, digest in zip(paths, hashes, strict=True)
    }


def _verify(artifact: Artifact, name: str, every_hash: bool) -> None:
    path, record = artifact.path / name, artifact.manifest.files[name]
    again = f"`nemo-sspo redo <run> --from {artifact.step_id}` makes it anew, and what was made from it"
    if not path.is_file():
        raise UserError(f"{path}: missing from a published artifact; {again}")
    wrong_size = path.stat().st_size != record.size
    hash_it = every_hash or record.size <= HASH_ON_OPEN_BYTES
    if wrong_size or (hash_it and _sha256(path) != record.sha256):
        raise UserError(f"{path}: differs from its manifest (damaged or edited); {again}")


def _fsync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        fsync(path)
    fsync(root)
