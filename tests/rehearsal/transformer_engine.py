"""A stand-in for Transformer Engine's compiled module, under which its own Python builds and runs its real layers.

Every function returns tensors of the shape and type that the kernel gives, keeps what it keeps and reduces what it
reduces; what is inside a kernel is not here. A function that is not here raises with its name. FP8 tensors are those of
Transformer Engine's Python: bytes, their transpose where it is asked for, and a scale.
"""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tests.rehearsal.counters import counters

MODULE = "transformer_engine_torch"


class DType(enum.IntEnum):
    """Numbers as in transformer_engine/common/include/transformer_engine/transformer_engine.h, version 2.9."""

    kByte = 0
    kInt16 = 1
    kInt32 = 2
    kInt64 = 3
    kFloat32 = 4
    kFloat16 = 5
    kBFloat16 = 6
    kFloat8E4M3 = 7
    kFloat8E5M2 = 8
    kFloat8E8M0 = 9
    kFloat4E2M1 = 10


# The places of a layer's quantizers in their lists, of three products each.
FP8FwdTensors = enum.IntEnum(
    "FP8FwdTensors", [f"GEMM{n}_{what}" for n in (1, 2, 3) for what in ("INPUT", "WEIGHT", "OUTPUT")], start=0
)
FP8BwdTensors = enum.IntEnum(
    "FP8BwdTensors", [f"GRAD_{what}{n}" for n in (1, 2, 3) for what in ("OUTPUT", "INPUT")], start=0
)


_TORCH = {
    DType.kByte: torch.uint8,
    DType.kInt32: torch.int32,
    DType.kInt64: torch.int64,
    DType.kFloat32: torch.float32,
    DType.kFloat16: torch.float16,
    DType.kBFloat16: torch.bfloat16,
}


class _Names(type):
    """A class whose attributes are numbers, made as they are asked for: for enumerations that are only passed on."""

    _members: dict[str, int]

    def __getattr__(cls, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls._members.setdefault(name, len(cls._members))


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Names(name, (), {"_members": {}}) if name[0].isupper() else _missing(name)
        setattr(self, name, made)
        return made


def _missing(name: str) -> Callable[..., Any]:
    def call(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(f"{MODULE}.{name}: the rehearsal has no stand-in for it")

    return call


def install() -> None:
    """Put the stand-in where Transformer Engine looks for its compiled module. Before its first import."""
    module = _Module(MODULE)
    module.__file__ = __file__
    module.__dict__.update({"DType": DType, "FP8FwdTensors": FP8FwdTensors, "FP8BwdTensors": FP8BwdTensors, **_KERNELS})
    sys.modules[MODULE] = module
    torch.version.cuda = "13.0"  # of NGC's image; Transformer Engine asks for 12.9 before it scales blocks in FP8
    import transformer_engine.common

    transformer_engine.common.load_framework_extension = lambda *_: None
    import transformer_engine.pytorch

    see_through_fake_tensors()


def see_through_fake_tensors() -> None:
    """Transformer Engine takes cuDNN's attention for exactly `torch.Tensor`, no subclass of it."""
    from transformer_engine.pytorch.attention.dot_product_attention import utils

    choose = utils.get_attention_backend

    def of_plain_tensors(parameters: Any) -> Any:
        if parameters.qkv_type is FakeTensor:
            parameters.qkv_type = Tensor
        return choose(parameters)

    utils.get_attention_backend = of_plain_tensors


# --- shapes ----------------------------------------------------------------------------------------------------------


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(x.shape, dtype=dtype or x.dtype, device=x.device)


def _shape(x: Any) -> torch.Size:
    """Of a tensor or of what Transformer Engine holds in place of one."""
    return x.shape if isinstance(x, Tensor) else torch.Size(x.size())


def _gemm(
    a: Any, trans_a: bool, b: Any, trans_b: bool, out: Tensor | None, quantizer: Any, out_dtype: int | None,
    bias: Tensor | None, _bias_dtype: int, gelu: bool, _gelu_in: Tensor | None, grad: bool, *_args: Any, **_kwargs: Any,
) -> tuple[Any, Tensor | None, None, None]:  # fmt: skip
    """b a in cuBLAS's order of rows: `a` is the weight, or, for its gradient, the input."""
    if gelu:
        raise NotImplementedError("the rehearsal's GEMM has no GELU behind it")
    shape_b = _shape(b)
    rows, columns = _product(_shape(a), trans_a, shape_b, trans_b)
    device = torch.device("cuda", torch.cuda.current_device())
    if out is None:
        dtype = torch.bfloat16 if out_dtype is None else _TORCH[DType(out_dtype)]
        if out_dtype is None and isinstance(a, Tensor):
            dtype = a.dtype
        shape = (rows, columns) if trans_b else (*shape_b[:-1], columns)
        out = torch.empty(shape, dtype=dtype, device=device)
    if quantizer is not None:
        out = quantizer(out)
    bias_grad = None
    if grad and bias is not None:
        bias_grad = torch.empty(shape_b[-1], dtype=bias.dtype, device=device)
    return out, bias_grad, None, None


def _product(shape_a: torch.Size, trans_a: bool, shape_b: torch.Size, trans_b: bool) -> tuple[int, int]:
    """Count it; its rows and columns."""
    inner, columns = shape_a[-1], shape_a[:-1].numel()
    if not trans_a:
        inner, columns = columns, inner
    rows = shape_b[-1] if trans_b else shape_b[:-1].numel()
    other = shape_b[:-1].numel() if trans_b else shape_b[-1]
    if inner != other:
        raise ValueError(f"a product of {tuple(shape_a)} and {tuple(shape_b)}")
    counters.work.product(rows, columns, inner)
    return rows, columns


def _grouped_gemm(
    a: list[Any], trans_a: bool, b: list[Any], trans_b: bool, out: list[Tensor], _out_dtype: int, splits: list[int],
    biases: list[Tensor], _bias_dtype: int, single_output: bool, *_args: Any,
) -> list[Tensor]:  # fmt: skip
    """A product for each expert, of as many rows as it has tokens, into `out`: one below the other, or each alone."""
    products = [_product(_shape(x), trans_a, _shape(y), trans_b) for x, y in zip(a, b, strict=True)]
    made = [(sum(splits), products[0][1])] if single_output else products
    if (given := [tuple(_shape(tensor)) for tensor in out]) != made:
        raise ValueError(f"products of {made} into {given}")
    return biases


# --- norms, rotary embeddings ----------------------------------------------------------------------------------------


def _norm_fwd(x: Tensor, out: Any, quantizer: Any, dtype: int, moments: int) -> tuple[Any, ...]:
    statistics = [torch.empty(x.shape[:-1].numel(), dtype=torch.float32, device=x.device) for _ in range(moments)]
    if quantizer is None:
        y = _like(x, _TORCH[DType(dtype)]) if out is None else out
    else:
        y = _quantize(_like(x, _TORCH[DType(dtype)]), quantizer, out)
    return y, *([None] * (2 - moments)), *statistics


def _rmsnorm_fwd(x: Tensor, _w: Tensor, _eps: float, out: Any, quantizer: Any, dtype: int, *_: Any) -> tuple[Any, ...]:
    return _norm_fwd(x, out, quantizer, dtype, 1)


def _layernorm_fwd(
    x: Tensor, _w: Tensor, _b: Any, _eps: float, out: Any, quantizer: Any, dtype: int, *_: Any
) -> tuple[Any, ...]:
    return _norm_fwd(x, out, quantizer, dtype, 2)


def _rope_forward(x: Tensor, *_: Any) -> Tensor:
    return _like(x)


# --- FP8 -------------------------------------------------------------------------------------------------------------


def _quantize(x: Tensor, quantizer: Any, out: Any = None, _noop: Any = None) -> Any:
    """`x` as the quantizer holds it. Tensorwise, the largest value is found first, over the ranks that share it."""
    if getattr(quantizer, "with_amax_reduction", False):
        # The compiled module's own from 2.16 on.
        amax = quantizer.amax if hasattr(quantizer, "amax") else torch.empty(1, device=x.device)
        dist.all_reduce(amax, op=dist.ReduceOp.MAX, group=quantizer._canonicalized_amax_reduction_group())
    if out is not None:
        return out
    made = quantizer.make_empty(x.shape, dtype=x.dtype, device=x.device)
    if not quantizer.rowwise_usage:
        made.update_usage(rowwise_usage=False, columnwise_usage=True)
    return _storage_of(made) if quantizer.internal else made


def _storage_of(tensor: Any) -> Any:
    """What the layers take in place of a tensor among themselves."""
    for base in type(tensor).__mro__:
        if base.__name__ == f"{type(tensor).__name__}Storage":
            return base(**tensor.get_metadata())
    raise TypeError(f"{type(tensor).__name__} has no storage class")


def _dequantize(x: Any, dtype: int) -> Tensor:
    return torch.empty(_shape(x), dtype=_TORCH[DType(dtype)], device=torch.device("cuda", torch.cuda.current_device()))


def _bgrad_quantize(x: Tensor, quantizer: Any) -> tuple[Tensor, Any]:
    return torch.empty(x.shape[-1], dtype=x.dtype, device=x.device), _quantize(x, quantizer)


def _fp8_transpose(x: Tensor, _dtype: int, out: Tensor | None = None) -> Tensor:
    return out if out is not None else torch.empty(x.shape[-1], *x.shape[:-1], dtype=x.dtype, device=x.device)


# --- cuDNN's attention -----------------------------------------------------------------------------------------------


def _attention_backend(*_: Any) -> int:
    return sys.modules[MODULE].NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen


def _attention_fwd(max_q: int, *arguments: Any) -> list[Tensor]:
    """The output, the logarithm of each query's sum and the state of the generator, also where no backward follows."""
    cu_q, q, k, v = _of_attention(arguments)
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
    counters.work.attention(_scores(max_q, cu_q, q, k), q.shape[-1], products=2)
    statistics = (*q.shape[:2], 1) if q.dim() == 3 else (len(cu_q) - 1, q.shape[-2], max_q, 1)
    return [
        out,
        torch.empty(statistics, dtype=torch.float32, device=q.device),
        torch.empty(2, dtype=torch.int64, device=q.device),
    ]


def _attention_bwd(max_q: int, *arguments: Any) -> list[Tensor | None]:
    """Gradients of q, k and v. cuDNN sums that of q in fp32, in a workspace that is gone with the call."""
    cu_q, q, k, v = _of_attention(arguments)
    counters.work.attention(_scores(max_q, cu_q, q, k), q.shape[-1], products=5)
    torch.empty(q.shape, dtype=torch.float32, device=q.device)
    return [_like(q), _like(k), _like(v), None, None]


def _of_attention(arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounds of the queries' sequences, queries, keys and values: first of the tensors in every version."""
    cu_q, _cu_kv, q, k, v, *_ = (value for value in arguments if isinstance(value, Tensor))
    return cu_q, q, k, v


def _scores(max_q: int, cu_q: Tensor, q: Tensor, k: Tensor) -> int:
    """Pairs of a query and a key over all heads, as if every query saw every key of its sequence: an upper bound, of
    which a causal mask leaves half."""
    sequences = max(1, len(cu_q) - 1)
    tokens = q.shape[:-2].numel()
    return q.shape[-2] * tokens * (k.shape[:-2].numel() // sequences if q.dim() == 4 else min(max_q, tokens))


# --- context parallelism's ring --------------------------------------------------------------------------------------


def _thd_half(x: Tensor, _cu: Tensor, _half: int) -> Tensor:
    """A half of each sequence of packed keys, values or queries, [tokens, heads, channels] or with k and v stacked."""
    dimension = 0 if x.dim() == 3 else 1
    shape = list(x.shape)
    shape[dimension] //= 2
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def _thd_second_half_lse(lse: Tensor, _cu: Tensor, packed: bool, tokens: int) -> Tensor:
    shape = (lse.shape[0], tokens) if packed else (*lse.shape[:2], tokens)
    return torch.empty(shape, dtype=lse.dtype, device=lse.device)


# --- the optimizer's loops over tensors ------------------------------------------------------------------------------


def _norms(_chunk: int, _overflow: Tensor, lists: list[list[Tensor]], per_tensor: bool = False) -> tuple[Tensor, ...]:
    device = lists[0][0].device
    count = len(lists[0]) if per_tensor else 0
    return tuple(torch.empty(n, dtype=torch.float32, device=device) for n in (1, count))


def _nothing(*_: Any, **__: Any) -> None:
    """Works in place."""


_KERNELS: dict[str, Callable[..., Any]] = {
    "generic_gemm": _gemm,
    "te_general_grouped_gemm": _grouped_gemm,
    "rmsnorm_fwd": _rmsnorm_fwd,
    "rmsnorm_bwd": lambda dy, x, _r, w, *_: (_like(x), _like(w)),
    "layernorm_fwd": _layernorm_fwd,
    "layernorm_bwd": lambda dy, x, _m, _r, w, *_: (_like(x), _like(w), _like(w)),
    "fused_rope_forward": _rope_forward,
    "fused_rope_backward": _rope_forward,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "bgrad_quantize": _bgrad_quantize,
    "fp8_transpose": _fp8_transpose,
    "get_fused_attn_backend": _attention_backend,
    "fused_attn_fwd": _attention_fwd,
    "fused_attn_bwd": _attention_bwd,
    "thd_read_half_tensor": _thd_half,
    "thd_read_second_half_lse": _thd_second_half_lse,
    "thd_second_half_lse_correction": _nothing,
    "thd_out_correction": _nothing,
    "thd_grad_correction": _nothing,
    "multi_tensor_l2norm": _norms,
    "multi_tensor_scale": _nothing,
    "multi_tensor_scale_tensor": _nothing,
    "multi_tensor_adam": _nothing,
    "get_cudnn_version": lambda: 91002,
    "get_cublasLt_version": lambda: 120803,
    "get_num_cublas_streams": lambda: 4,
    "device_supports_multicast": lambda *_: True,
}
