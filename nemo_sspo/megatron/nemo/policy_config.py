"""NeMo's config class of a policy, with the fields that `models/fields.py` reads from Hugging Face's config."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from megatron.core.models.gpt import GPTModel
from nemo.collections.llm.gpt.model.base import GPTConfig
from nemo.collections.llm.gpt.model.gemma2 import Gemma2Config
from nemo.collections.llm.gpt.model.llama import Llama31Config
from typing_extensions import override

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.gemma2 import finish_gemma2
from nemo_sspo.megatron.layers.policy_config import ACTIVATIONS
from nemo_sspo.megatron.models.families import family_of
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.fields import model_fields, rope_scaling, transformer_fields
from nemo_sspo.megatron.models.layout import VOCAB_MULTIPLE


@dataclass
class Gemma2PolicyConfig(Gemma2Config):
    """NeMo's config of Gemma 2, building the model that Hugging Face has; see `layers/gemma2.py`."""

    sandwich_norms: bool = True

    @override
    def configure_model(self, *args: Any, **kwargs: Any) -> GPTModel:
        return finish_gemma2(super().configure_model(*args, **kwargs))


def nemo_config(config: HFConfig, **settings: Any) -> GPTConfig:
    """NeMo config of a Hugging Face model; `settings` are further fields (layer spec, precision).

    Raises UserError for an unknown family and for features whose numbers would differ from Hugging Face's.
    """
    return _config_class(config)(
        activation_func=ACTIVATIONS[family_of(config).activation],
        seq_length=config.count("max_position_embeddings"),
        make_vocab_size_divisible_by=VOCAB_MULTIPLE,
        **transformer_fields(config),
        **model_fields(config),
        **rope_scaling(config),
        **settings,
    )


def _config_class(config: HFConfig) -> type[GPTConfig]:
    if config.rope["rope_type"] == "llama3":
        return Llama31Config  # scales the rotary frequencies of the model that it builds
    if (path := family_of(config).nemo_config) is None:
        raise UserError(
            f"{config.path}: NeMo has no model of model_type {config.get('model_type')!r}: set trainer=core"
        )
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
