"""The configuration tree as rows: where a setting is, what it is set to, and what it means."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.roles import Role, role_of

REQUIRED = "(required)"


@dataclass(frozen=True)
class FieldMeaning:
    """One setting of the tree."""

    path: str
    """Dotted key, as an override names it."""
    value: Any
    is_default: bool
    """Whether the value is the one that applies when nothing is given."""
    meaning: str
    role: Role | None
    """What it is besides its value: whether it may change in a started run, say."""


def describe_settings(settings: Mapping[str, Any], model: type[BaseModel] = Experiment) -> Iterator[FieldMeaning]:
    """Yield every leaf of `model` in the order of the class, with its value in `settings` or its default."""
    yield from _walk(model, settings, "", (), None)


@cache
def kinds_of_keys() -> dict[str, tuple[str, ...]]:
    """Every dotted key of every variant, with the kinds it belongs to; ("",) for keys outside of unions."""
    keys: dict[str, tuple[str, ...]] = {}
    for path, kind in _paths(Experiment, "", ""):
        keys[path] = (*keys.get(path, ()), kind)
    return keys


def _walk(
    model: type[BaseModel], settings: Mapping[str, Any], prefix: str, kinds: tuple[str, ...], inherited: Role | None
) -> Iterator[FieldMeaning]:
    for name, field in model.model_fields.items():
        path, role = f"{prefix}{name}", role_of(field, inherited)
        given = settings.get(name)
        members = _models(field.annotation)
        if members:
            section = _chosen(members, given)
            below = given if isinstance(given, Mapping) else {}
            yield from _walk(section, below, f"{path}.", tuple(map(kind_of, members)), role)
            continue
        default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        value = settings.get(name, default)
        meaning = f"One of {', '.join(kinds)}." if name == "kind" else _meaning(field)
        yield FieldMeaning(path, value, value == default, meaning, role)


def _meaning(field: FieldInfo) -> str:
    """With the values that can be chosen, where there are a few."""
    values = _literals(field.annotation)
    if not values:
        return field.description or ""
    several = "Any" if get_origin(field.annotation) is tuple else "One"
    nothing = ["null"] if type(None) in get_args(field.annotation) else []
    return f"{field.description or ''} {several} of {', '.join([*values, *nothing])}.".lstrip()


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [value for argument in get_args(annotation) for value in _literals(argument)]


def _chosen(members: list[type[BaseModel]], given: Any) -> type[BaseModel]:
    """The class below a field: the only one, or the union's member that `kind` names."""
    kind = given.get("kind") if isinstance(given, Mapping) else None
    return next((member for member in members if kind_of(member) == kind), members[0])


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def kind_of(model: type[BaseModel]) -> str:
    """The ``kind`` of a variant; "" where a class has none."""
    field = model.model_fields.get("kind")
    return str(field.default) if field is not None else ""


def _paths(model: type[BaseModel], prefix: str, kind: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path, kind
        members = _models(field.annotation)
        for member in members:
            yield from _paths(member, f"{path}.", kind_of(member) or kind)
