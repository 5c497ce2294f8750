"""Which trainer reads, trains and writes the policy."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

Trainer = Literal["auto", "nemo", "core"]

Named = Literal["nemo", "core"]

PACKAGES: Mapping[Named, str] = {"nemo": "nemo.collections.llm", "core": "megatron.core"}
"""What each trainer is built on; the first one that is there is `auto`'s choice."""


def trainer_here(trainer: Trainer) -> Named | None:
    """The trainer that a setting means in this environment; None where `auto` finds none. Nothing large is imported."""
    if trainer != "auto":
        return trainer
    return next((name for name, package in PACKAGES.items() if _is_here(package)), None)


def _is_here(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # the package that it lies in is not here
        return False
