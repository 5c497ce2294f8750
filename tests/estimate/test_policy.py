"""Sizes that the planner knows of policies whose files are not here."""

from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.estimate.policy import policy_shape
from nemo_sspo.megatron.models.families import FAMILIES
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.shape import Shape
from tests.published_models import PUBLISHED

MODELS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_conf_is_known(model):
    shape = policy_shape(load_experiment([f"model={model}", "method=s-sppo", "prompts=p"]))
    if model in PUBLISHED:
        defaults = FAMILIES[PUBLISHED[model]["model_type"]].defaults
        assert shape == Shape.of(HFConfig({**defaults, **PUBLISHED[model]}, Path(model)))
