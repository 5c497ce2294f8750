"""How typed facts become the flat ``counts`` of a manifest, and how they are read from it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from nemo_sspo.errors import UserError

Counts: TypeAlias = dict[str, int | float | str | None]
"""What the JSON of a manifest holds."""

_ENDS = {"mean": "", "low": "_low", "high": "_high"}
"""How the parts of an `Interval` are named behind its key."""


@dataclass(frozen=True)
class Keys:
    """Marks a fact that is a mapping: ``dropped_{}`` says what its members are called in a manifest."""

    pattern: str


SomeFacts = TypeVar("SomeFacts", bound="Facts")


class Facts(BaseModel):
    """What the content of an artifact determines, beside that content.

    The stage gives every fact that has no default. A reader finds None, or nothing in a mapping, where a manifest of
    an earlier release has no such fact, and nothing of what is unknown today.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    @classmethod
    def of(cls, counts: Mapping[str, Any], manifest: Path) -> Self:
        """Read the facts of a manifest.

        Raises:
            UserError: one is of another type than this version writes; it is named.
        """
        try:
            return cls.model_validate_json(json.dumps(cls._by_field(_with_intervals(counts))))
        except ValidationError as error:
            raise UserError(f"{manifest}: {cls._problem(error.errors()[0])}; make that artifact again") from None

    def counts(self) -> Counts:
        """The facts by the keys of a manifest. One that has its default is left out."""
        flat: Counts = {}
        for name, value in self.model_dump(exclude_defaults=True).items():
            keys = self._keys().get(name)
            members = {name: value} if keys is None else {keys.format(member): v for member, v in value.items()}
            for key, fact in members.items():
                parts = fact.items() if isinstance(fact, dict) else [("mean", fact)]
                flat |= {f"{key}{_ENDS[part]}": number for part, number in parts}
        return flat

    @classmethod
    def _keys(cls) -> dict[str, str]:
        """The patterns of the facts that are mappings."""
        marked = {name: [m for m in field.metadata if isinstance(m, Keys)] for name, field in cls.model_fields.items()}
        return {name: keys[0].pattern for name, keys in marked.items() if keys}

    @classmethod
    def _by_field(cls, counts: dict[str, Any]) -> dict[str, Any]:
        keys = cls._keys()
        plain = cls.model_fields.keys() - keys
        required = {name: None for name in plain if cls.model_fields[name].is_required()}
        found = required | {name: counts.pop(name) for name in plain & counts.keys()}
        for name, pattern in keys.items():
            member = re.compile(re.escape(pattern).replace(r"\{\}", "(.+)"))
            found[name] = {match[1]: value for key, value in counts.items() if (match := member.fullmatch(key))}
        return found

    @classmethod
    def _problem(cls, error: ErrorDetails) -> str:
        name, *below = map(str, error["loc"])
        key = cls._keys()[name].format(below.pop(0)) if name in cls._keys() else name
        end = _ENDS.get(below[0], "") if below else ""
        reason = "without its interval" if error["type"] == "dataclass_type" else error["msg"].lower()
        return f"counts.{key}{end} is {error['input']!r} ({reason})"


def _with_intervals(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Every mean that has both ends becomes one with them."""
    means = [key for key in counts if all(f"{key}{end}" in counts for end in _ENDS.values())]
    intervals = {key: {part: counts[f"{key}{end}"] for part, end in _ENDS.items()} for key in means}
    taken = {f"{key}{end}" for key in means for end in _ENDS.values()}
    return {key: value for key, value in counts.items() if key not in taken} | intervals
