"""What every trainer refuses before it starts a rank."""

from __future__ import annotations

from pathlib import Path

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.config.trainers import Trainer
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.layout import layout_problems, mixture_problems, setting_problems
from nemo_sspo.megatron.models.precision import require_support


def policy_for(hf_dir: Path, parallel: Parallel, precision: Precision, train: Train, trainer: Trainer) -> HFConfig:
    """The policy's config, once it is known that the policy can be trained so here.

    Raises UserError where the machine lacks the precision, the layout does not divide the model, settings exclude
    each other or `trainer` cannot train it.
    """
    require_support(precision)
    policy = read_hf_config(hf_dir)
    for problem in (
        *layout_problems(policy, parallel),
        *mixture_problems(policy, parallel, train, precision, trainer),
        *setting_problems(parallel, train, precision),
    ):
        raise UserError(problem)
    return policy
