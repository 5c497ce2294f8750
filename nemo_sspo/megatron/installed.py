"""Whether an environment has the packages of a trainer, in versions that were tested together. Imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from nemo_sspo.config.trainers import Named, Trainer, trainer_here
from nemo_sspo.errors import UserError

REQUIRED: Mapping[Named, str] = {
    "nemo": "nemo_sspo.megatron.nemo.versions:require_nemo",
    "core": "nemo_sspo.megatron.versions:require_megatron_core",
}
"""By a trainer's name, where lies what raises UserError for packages that are missing or of other versions."""


def named_trainer(trainer: Trainer) -> Named:
    """What a setting of `trainer` means here. Raises UserError where `auto` finds none."""
    if (name := trainer_here(trainer)) is None:
        raise UserError("trainer=auto: this environment has neither NeMo nor megatron-core; install one (README.md)")
    return name


def require_trainer(trainer: Trainer) -> None:
    """Raise UserError for packages that are missing or of versions that were never tested together."""
    module, _, function = REQUIRED[named_trainer(trainer)].partition(":")
    getattr(import_module(module), function)()


def trainer_problems(trainer: Trainer) -> list[str]:
    """What `require_trainer` refuses."""
    try:
        require_trainer(trainer)
    except UserError as error:
        return [str(error)]
    return []
