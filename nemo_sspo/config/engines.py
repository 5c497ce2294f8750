"""The kinds of rollout engine: classes of ``rollout/``."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.roles import Knob

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
