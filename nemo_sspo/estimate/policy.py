"""The sizes of an experiment's policy: from its files, or published ones where these are not here."""

from __future__ import annotations

from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import FAMILIES, read_hf_config
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.layout import layout_problems, mixture_problems
from nemo_sspo.megatron.models.shape import Shape

_PUBLISHED = Path(__file__).parent / "published_sizes.yaml"


def policy_shape(experiment: Experiment) -> Shape:
    """Raises UserError for a policy whose sizes are not known here, or which the layout cannot train."""
    config, parallel = _config(experiment.policy), experiment.parallel
    of_mixture = mixture_problems(config, parallel, experiment.train, experiment.precision, experiment.trainer)
    if problem := next(chain(layout_problems(config, parallel), of_mixture), None):
        raise UserError(problem)
    return Shape.of(config)


def _config(policy: str) -> HFConfig:
    if Path(policy).is_dir():
        return read_hf_config(Path(policy))
    if (sizes := _published().get(policy)) is None:
        raise UserError(
            f"policy={policy}: its sizes are not known here; give a directory that has its config.json, or one of "
            f"{', '.join(_published())}"
        )
    return HFConfig({**FAMILIES[sizes["model_type"]].defaults, **sizes}, _PUBLISHED)


@cache
def _published() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(_PUBLISHED.read_text())
