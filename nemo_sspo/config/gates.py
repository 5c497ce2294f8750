"""The kinds of a semantic gate's weight: functions of ``objective/gates.py``."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, PositiveFloat

from nemo_sspo.config.functions import CustomFunction, FunctionVariant

GateForm = Literal["pair", "mean_overlap", "pairwise"]


class NoGate(FunctionVariant):
    section = "gate"
    signature = ("similarity",)
    form: ClassVar[GateForm] = "pair"
    kind: Literal["none"] = "none"


class _Gate(FunctionVariant):
    section = "gate"
    signature = ("similarity",)
    not_arguments = frozenset({"form"})
    form: GateForm = "pair"
    """The overlap that anneals a target: the selected pair's, each response's mean, or every P_ij by its own S_ij."""


class LinearGate(_Gate):
    kind: Literal["linear"] = "linear"


class PowerGate(_Gate):
    kind: Literal["power"] = "power"
    exponent: PositiveFloat = 2.0
    """Weight (1 - S)^exponent."""


class SigmoidGate(_Gate):
    kind: Literal["sigmoid"] = "sigmoid"
    sharpness: PositiveFloat = 10.0
    """Slope of the logistic fall around S = 1/2."""


class ThresholdGate(_Gate):
    kind: Literal["threshold"] = "threshold"
    centre: float = Field(default=0.8, gt=0.0, lt=1.0)
    """Similarity at which half of the preference is kept."""
    sharpness: PositiveFloat = 50.0
    """Slope of the step."""


class KernelGate(_Gate):
    kind: Literal["kernel"] = "kernel"
    bandwidth: PositiveFloat = 0.5
    """Bandwidth of the Gaussian kernel on the squared distance of unit embeddings."""


class CustomGate(_Gate, CustomFunction):
    kind: Literal["custom"] = "custom"


Gate = Annotated[
    NoGate | LinearGate | PowerGate | SigmoidGate | ThresholdGate | KernelGate | CustomGate, Field(discriminator="kind")
]
GATES: tuple[Gate, ...] = tuple(gate() for gate in get_args(get_args(Gate)[0]) if gate is not CustomGate)
"""Every gate of ours at its defaults; ``none`` is the first."""
