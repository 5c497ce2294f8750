"""Settings as earlier releases wrote them, under the names of today: stored runs and files of a user still load."""

from collections.abc import Callable, Mapping
from typing import Any

Section = dict[str, Any]


def tree_of_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration, section by section."""
    return {
        name: _SECTIONS[name](dict(value)) if name in _SECTIONS and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def keys_of_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, as a manifest has them."""
    found = {key: value for key, value in settings.items() if key.partition(".")[0] not in _SECTIONS}
    for name, of_today in _SECTIONS.items():
        prefix = f"{name}."
        section = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
        if section:
            found |= {f"{prefix}{key}": value for key, value in of_today(section).items()}
    if "train.reference" in found:  # NeMo was the only trainer
        found.setdefault("trainer", "nemo")
    return found


def _repulsion(section: Section) -> Section:
    """A repulsion had a `form`, and the parameters of every form."""
    if "form" not in section or "kind" in section:
        return section
    kind = section.pop("form")
    parameters = {"margin": "hinge", "temperature": "kernel"}
    return {"kind": kind} | {name: value for name, value in section.items() if parameters.get(name, kind) == kind}


def _gate(section: Section) -> Section:
    """No gate had a form."""
    if section.get("kind") == "none" and section.get("form") == "pair":
        del section["form"]
    return section


def _cluster(section: Section) -> Section:
    """A cluster without a kind was this machine."""
    return {"kind": "local"} | section


_SECTIONS: Mapping[str, Callable[[Section], Section]] = {"repulsion": _repulsion, "gate": _gate, "cluster": _cluster}
