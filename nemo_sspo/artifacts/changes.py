"""How an artifact's settings and inputs differ from the current ones."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from nemo_sspo.artifacts.fingerprint import differ
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.words import counted

CONTENT = "content of "
"""Prefix of a setting's key: the fingerprint of the files that the setting names."""


def changes(
    manifest: Manifest,
    config: Mapping[str, Any],
    inputs: Mapping[str, Sequence[str]],
    knobs: Set[str] = frozenset(),
) -> list[str]:
    """Settings and inputs that differ, a line each.

    Args:
        config: the settings that the step has today.
        inputs: the digests of today's inputs, by name.
        knobs: settings that may differ; manifests of earlier releases have them among the others.
    """
    return [*setting_changes(manifest.config, config, knobs), *_input_changes(manifest, inputs)]


def setting_changes(before: Mapping[str, Any], after: Mapping[str, Any], knobs: Set[str] = frozenset()) -> list[str]:
    """Lines ``key: before -> after`` of the settings that are known to differ, but for `knobs`.

    Files that were seen when the artifact was made and lie elsewhere now (in another image, on another machine) are
    not known to differ: the stage that reads them looks for itself.
    """
    before, after = flat(before), flat(after)
    return [
        f"{key}: {shown(before.get(key))} -> {shown(after.get(key))}"
        for key in sorted({*before, *after} - knobs)
        if differ(before.get(key), after.get(key)) and not (key.startswith(CONTENT) and key not in after)
    ]


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of sections that lie in each other, by dotted key. An empty section stays a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        below = {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {}
        found |= flat(below) if below else {key: value}
    return found


def _input_changes(manifest: Manifest, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for name in sorted({*manifest.inputs, *inputs}):
        before, after = [record.digest for record in manifest.inputs.get(name, [])], list(inputs.get(name, []))
        if before != after:
            what = (
                "content changed"
                if len(before) == len(after)
                else f"{counted(len(before), 'artifact')} -> {len(after)}"
            )
            lines.append(f"input {name}: {what}")
    return lines


def shown(value: Any) -> str:
    """A setting's value as messages show it."""
    return "unset" if value is None else repr(value)
