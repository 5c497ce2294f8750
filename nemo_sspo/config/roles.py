"""What a setting is besides its value, declared with it: ``pack_tokens: Annotated[PositiveInt, Knob()]``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Knob:
    """Fits a run to its machine and changes results by rounding at most, so it may change in the middle of a run."""

    remark: ClassVar[str] = "may change in a started run; changes results by rounding at most"


@dataclass(frozen=True)
class WithoutEffect:
    """Changes no result at all, so it may change in the middle of a step."""

    remark: ClassVar[str] = "may change in a started run; changes no result"


@dataclass(frozen=True)
class SourcePath:
    """Names files outside the run, whose content matters as much as their name; or a hub id in their place."""

    remark: ClassVar[str] = "the content of the files counts too"


@dataclass(frozen=True)
class ImportPath:
    """Names a function of the user's by its import path: the module's own file counts, not what it imports."""

    remark: ClassVar[str] = "the content of the module's own file counts too"


Role = Knob | WithoutEffect | SourcePath | ImportPath


def roles(settings: BaseModel) -> dict[str, Role]:
    """The role of every setting that has one, by dotted key. All settings of a section have the section's role."""
    return dict(_walk(settings, "", None))


def role_of(field: FieldInfo, inherited: Role | None) -> Role | None:
    """The role that a field is declared with, or else its section's."""
    return next((item for item in field.metadata if isinstance(item, Role)), inherited)


def _walk(settings: BaseModel, prefix: str, inherited: Role | None) -> Iterator[tuple[str, Role]]:
    for name, field in type(settings).model_fields.items():
        role = role_of(field, inherited)
        value = getattr(settings, name, None)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.", role)
        elif role is not None:
            yield f"{prefix}{name}", role
