"""The kinds of precision that training computes in: ``megatron/models/precision.py``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, field_validator

from nemo_sspo.config.base import Frozen


class Fp32Precision(Frozen):
    kind: Literal["fp32"] = "fp32"


class Bf16Precision(Frozen):
    kind: Literal["bf16"] = "bf16"


class Fp8Precision(Frozen):
    kind: Literal["fp8"] = "fp8"
    recipe: Literal["tensorwise", "blockwise"] = "tensorwise"
    """Transformer Engine's scaling recipe: a scale for each tensor, or for each block of one, of its own values."""
    format: Literal["hybrid", "e4m3"] = "hybrid"
    """Number formats: ``hybrid`` is E4M3 forward and E5M2 backward."""
    first_last_layers_bf16: NonNegativeInt = 0
    """Layers at either end that stay in bf16."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _no_history(cls, recipe: object) -> object:
        if recipe == "delayed":
            raise ValueError(
                "delayed scaling is not supported: its scales come from earlier training passes, and the reference "
                "log-probs, which are computed without any, would be another model's; use tensorwise"
            )
        return recipe


Precision = Annotated[Fp32Precision | Bf16Precision | Fp8Precision, Field(discriminator="kind")]
