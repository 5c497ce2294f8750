"""JSON files of facts that a stage leaves for the report, each with the version of its schema."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nemo_sspo.errors import UserError


class Facts(BaseModel):
    """A part of such a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FactsFile(Facts):
    """All of a file."""

    schema_version: int


File = TypeVar("File", bound=FactsFile)


def read_facts(path: Path, kind: type[File], what: str) -> File:
    """Read a file of facts; `what` names its content.

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
