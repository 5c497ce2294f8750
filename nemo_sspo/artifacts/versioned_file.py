"""JSON files that a stage leaves for the report, each with the version of its schema."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nemo_sspo.errors import UserError


class FilePart(BaseModel):
    """A part of such a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class VersionedFile(FilePart):
    """All of a file."""

    schema_version: int


File = TypeVar("File", bound=VersionedFile)


def read_versioned(path: Path, kind: type[File], what: str) -> File:
    """Read such a file; `what` names its content.

    Raises:
        UserError: it was written by another version of the schema.
    """
    try:
        found = kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: not {what} of this version ({error.error_count()} errors)") from None
    if found.schema_version != (today := kind.model_fields["schema_version"].default):
        raise UserError(f"{path}: schema version {found.schema_version}, this version reads {today}")
    return found
