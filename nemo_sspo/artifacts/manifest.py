"""The manifest of an artifact: what it holds, what it was made from, and by which code and settings."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nemo_sspo.artifacts.facts.base import Counts
from nemo_sspo.artifacts.layout import step_id
from nemo_sspo.config.earlier import keys_of_today
from nemo_sspo.errors import UserError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 2
"""What is written. Version 1 named no steps among its inputs, and had neither knobs nor notes; it is still read."""
READABLE_VERSIONS = (1, 2)


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int
    """Bytes."""


class InputRecord(BaseModel):
    """An artifact that another one was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    """The step that made it; "" in a manifest of version 1."""
    digest: str


class Manifest(BaseModel):
    """Everything that is known of an artifact without opening its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    """Of the manifest itself."""
    stage: str
    """The verb that made it."""
    iteration: int
    """0 for the preparation, and for the base policy's artifacts."""
    shard: int
    """0 where a stage has none."""
    config: dict[str, Any]
    """The settings this stage depends on, resolved."""
    knobs: dict[str, Any] = {}
    """Settings that it ran with and that do not change the result beyond rounding; no part of the identity. Manifests
    of earlier releases have some of them in `config`."""
    rounding: tuple[str, ...] = ()
    """Those of the knobs that change rounding."""
    inputs: dict[str, list[InputRecord]]
    """The artifacts it was made from, by name."""
    files: dict[str, FileRecord]
    """Content, by relative path. These files are the artifact's identity."""
    rows: int
    """Of its tables; 0 where it has none."""
    counts: Counts
    """Facts that the content determines, as `artifacts.facts` flattens them."""
    timings: dict[str, float]
    """Seconds and rates: they differ between equal runs, so they are no part of the identity."""
    code_version: str
    """Release of nemo-sspo."""
    software: dict[str, str] = {}
    """Versions of what changes numbers, by package; no part of the identity."""
    notes: tuple[str, ...] = ()
    """What happened on the way that a reader should know; no part of the identity."""
    created_at: str
    """When the work began, ISO 8601 in UTC; it ended ``timings["seconds"]`` later."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_readable_version(cls, fields: Any) -> Any:
        version = fields.get("schema_version", SCHEMA_VERSION) if isinstance(fields, dict) else SCHEMA_VERSION
        if version not in READABLE_VERSIONS:
            raise ValueError(f"schema version {version}, of another release of nemo-sspo: open it with that release")
        if not isinstance(fields, dict):
            return fields
        if isinstance(config := fields.get("config"), dict):
            fields = fields | {"config": keys_of_today(config)}
        if version == 1 and isinstance(inputs := fields.get("inputs"), dict):
            records = {name: [{"step": "", "digest": digest} for digest in group] for name, group in inputs.items()}
            return fields | {"inputs": records}
        return fields

    @property
    def digest(self) -> str:
        """Identity of the content: equal for equal files, whenever and wherever they were made."""
        files = {path: record.sha256 for path, record in self.files.items()}
        return digest_of({"stage": self.stage, "schema": self.schema_version, "files": files})


def read_manifest_file(path: Path) -> Manifest:
    """The manifest in an artifact's directory.

    Raises:
        FileNotFoundError: there is none, so that nothing is published there.
        UserError: it cannot be read, or another release wrote it.
    """
    try:
        return Manifest.model_validate_json((path / MANIFEST_NAME).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else f"{error.error_count()} errors"
        raise UserError(f"{path / MANIFEST_NAME}: not a manifest of this version ({reason})") from None


def step_of(path: Path, manifest: Manifest) -> str:
    """Name of the step whose artifact lies at `path`."""
    return step_id(manifest.stage, manifest.iteration, manifest.shard if path.name.startswith("shard_") else None)


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a mapping, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
