"""The manifest of an artifact: what it holds, what it was made from, and by which code and settings."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int
    """Bytes."""


class Manifest(BaseModel):
    """Everything that is known of an artifact without opening its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    stage: str
    iteration: int
    shard: int
    config: dict[str, Any]
    """The settings this stage depends on, resolved."""
    inputs: dict[str, list[str]]
    """Digests of the artifacts it was made from, by name."""
    files: dict[str, FileRecord]
    """Content, by relative path. These files are the artifact's identity."""
    rows: int
    counts: dict[str, int | float | str | None]
    """Facts that the content determines."""
    timings: dict[str, float]
    """Seconds and rates: they differ between equal runs, so they are no part of the identity."""
    code_version: str
    software: dict[str, str] = {}
    """Versions of what changes numbers, by package; no part of the identity."""
    created_at: str
    """When the work began, ISO 8601 in UTC; it ended ``timings["seconds"]`` later."""

    @property
    def digest(self) -> str:
        """Identity of the content: equal for equal files, whenever and wherever they were made."""
        files = {path: record.sha256 for path, record in self.files.items()}
        return digest_of({"stage": self.stage, "schema": self.schema_version, "files": files})


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a mapping, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
