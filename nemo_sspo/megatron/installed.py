"""Whether an environment has the packages of a trainer, in versions that were tested together. Imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nemo_sspo.config.trainers import Trainer, trainer_here
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.nemo.versions import require_nemo
from nemo_sspo.megatron.versions import require_megatron_core

REQUIRED: Mapping[str, Callable[[], object]] = {"nemo": require_nemo, "core": require_megatron_core}
"""By a trainer's name, what raises UserError where its packages are missing or of other versions."""


def named_trainer(trainer: Trainer) -> str:
    """What a setting of `trainer` means here. Raises UserError where `auto` finds none."""
    if (name := trainer_here(trainer)) is None:
        raise UserError("trainer=auto: this environment has neither NeMo nor megatron-core; install one (README.md)")
    return name


def require_trainer(trainer: Trainer) -> None:
    """Raise UserError for packages that are missing or of versions that were never tested together."""
    REQUIRED[named_trainer(trainer)]()


def trainer_problems(trainer: Trainer) -> list[str]:
    """What `require_trainer` refuses."""
    try:
        require_trainer(trainer)
    except UserError as error:
        return [str(error)]
    return []
