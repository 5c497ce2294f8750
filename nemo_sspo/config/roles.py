"""What a setting is besides its value, declared with it: ``pack_tokens: Annotated[PositiveInt, Knob()]``."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class Knob:
    """Fits a run to its machine and changes results by rounding at most, so it may change in the middle of a run."""


@dataclass(frozen=True)
class WithoutEffect:
    """Changes no result at all, so it may change in the middle of a step."""


@dataclass(frozen=True)
class SourcePath:
    """Names files outside the run, whose content matters as much as their name; or a hub id in their place."""


@dataclass(frozen=True)
class ImportPath:
    """Names a function of the user's by its import path: the module's own file counts, not what it imports."""


Role = Knob | WithoutEffect | SourcePath | ImportPath


def roles(settings: BaseModel) -> dict[str, Role]:
    """The role of every setting that has one, by dotted key. All settings of a section have the section's role."""
    return dict(_walk(settings, "", None))


def _walk(settings: BaseModel, prefix: str, inherited: Role | None) -> Iterator[tuple[str, Role]]:
    for name, field in type(settings).model_fields.items():
        role = next((item for item in field.metadata if isinstance(item, Role)), inherited)
        value = getattr(settings, name, None)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.", role)
        elif role is not None:
            yield f"{prefix}{name}", role
