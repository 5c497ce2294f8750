"""The kinds of latent repulsion: functions of ``objective/repulsion.py``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from nemo_sspo.config.functions import CustomFunction, FunctionVariant


class _Repulsion(FunctionVariant):
    section = "repulsion"
    signature = ("u_chosen_BH", "u_rejected_BH")
    not_arguments = frozenset({"pooling", "weight", "schedule"})
    pooling: Literal["last", "mean"] = "last"
    """State of a response: its last token's, or the mean over its tokens; after the final norm."""
    weight: NonNegativeFloat = 1.0
    """lambda, the term's weight (S-SPPO: 1)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How lambda changes over the optimizer steps."""


class EuclideanRepulsion(_Repulsion):
    kind: Literal["euclidean"] = "euclidean"


class CosineRepulsion(_Repulsion):
    kind: Literal["cosine"] = "cosine"


class CosineSquaredRepulsion(_Repulsion):
    kind: Literal["cosine_squared"] = "cosine_squared"


class HingeRepulsion(_Repulsion):
    kind: Literal["hinge"] = "hinge"
    margin: float = 0.0
    """Cosine below which there is no force."""


class KernelRepulsion(_Repulsion):
    kind: Literal["kernel"] = "kernel"
    temperature: PositiveFloat = 1.0
    """Bandwidth of the Gaussian kernel."""


class CustomRepulsion(_Repulsion, CustomFunction):
    kind: Literal["custom"] = "custom"


Repulsion = Annotated[
    EuclideanRepulsion | CosineRepulsion | CosineSquaredRepulsion | HingeRepulsion | KernelRepulsion | CustomRepulsion,
    Field(discriminator="kind"),
]
