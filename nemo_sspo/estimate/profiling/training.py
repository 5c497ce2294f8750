"""Rates of one GPU, or of this processor: `python -m nemo_sspo.estimate.profiling.training FOLDER`; prints JSON.

    products     a layer's matrices with the norms and the activation function between them, forward and backward; in
                 FP8 by Transformer Engine, where it and the GPU have it
    attention    torch's own, causal, forward and backward
    forward      the same layer, forward
    memory       a copy on the device; to the host, into pinned memory; storage, a file in FOLDER and back

A layer is as wide as an 8B policy's on a GPU. A processor gets a small one and fewer tokens.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_sspo.config.precisions import Fp8Precision
from nemo_sspo.errors import UserError
from nemo_sspo.estimate.profiling.clock import seconds
from nemo_sspo.megatron.models.precision import require_support

_GPU = {"tokens": 8192, "hidden": 4096, "feed_forward": 14336, "heads": 32, "sequence": 1024}
_PROCESSOR = {"tokens": 128, "hidden": 256, "feed_forward": 512, "heads": 4, "sequence": 64}
_COPIED = {"cuda": 2**30, "cpu": 2**26}
_STORED = 2**26


def main(folder: Path) -> None:
    """Print the rates in a line of JSON, in FLOP/s and bytes/s."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = _GPU if device == "cuda" else _PROCESSOR
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name() if device == "cuda" else "processor"}
    found["memory_gib"] = _memory(device)
    for kind, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        found[f"products_{kind}"] = _products(sizes, partial(_matrix, dtype=dtype, device=device))
    with suppress(UserError):
        require_support(Fp8Precision())
        found["products_fp8"] = _fp8_products(sizes)
    found["forward"] = _products(sizes, partial(_matrix, dtype=torch.bfloat16, device=device), backward=False)
    found["attention"] = _attention(sizes, device)
    found["memory_bandwidth"] = _copies(device, lambda source: source.clone(), passes=2)
    if device == "cuda":
        found["to_host"] = _to_host()
    found["storage"] = _storage(folder)
    print(json.dumps(found))


def _memory(device: str) -> float:
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _matrix(inputs: int, outputs: int, *, dtype: torch.dtype, device: str) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=False, dtype=dtype, device=device)


def _fp8_products(sizes: dict[str, int]) -> float:
    """With a scale for each tensor, of its own values, as `precision=fp8` trains."""
    from transformer_engine import pytorch as transformer_engine
    from transformer_engine.common.recipe import Float8CurrentScaling

    matrix = partial(transformer_engine.Linear, bias=False, params_dtype=torch.bfloat16)
    return _products(sizes, matrix, lambda: transformer_engine.fp8_autocast(fp8_recipe=Float8CurrentScaling()))


def _products(
    sizes: dict[str, int],
    matrix: Callable[[int, int], nn.Module],
    precision: Callable[[], AbstractContextManager] = nullcontext,
    *,
    backward: bool = True,
) -> float:
    hidden, feed_forward = sizes["hidden"], sizes["feed_forward"]
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, 2 * feed_forward), (feed_forward, hidden)]
    matrices = qkv, projection, gate_up, down = [matrix(*shape) for shape in shapes]
    weights = [weight for each in matrices for weight in each.parameters()]
    x_TH = torch.randn(sizes["tokens"], hidden, dtype=weights[0].dtype, device=weights[0].device).requires_grad_(
        backward
    )

    def layer() -> Tensor:
        y_TH = x_TH + projection(qkv(F.rms_norm(x_TH, (hidden,)))[:, :hidden])
        gate, up = gate_up(F.rms_norm(y_TH, (hidden,))).chunk(2, dim=-1)
        return y_TH + down(F.silu(gate) * up)

    def step() -> object:
        if not backward:
            with torch.inference_mode():
                return layer()
        with precision():
            output = layer()
        return torch.autograd.grad(output.sum(), (x_TH, *weights))

    operations = 2 * sizes["tokens"] * sum(inputs * outputs for inputs, outputs in shapes)
    return (3 if backward else 1) * operations / seconds(step, x_TH.device.type)


def _attention(sizes: dict[str, int], device: str) -> float:
    """Of the half of all products that a causal mask leaves: two forward, five backward."""
    channels = sizes["hidden"] // sizes["heads"]
    shape = (sizes["tokens"] // sizes["sequence"], sizes["heads"], sizes["sequence"], channels)
    q, k, v = (torch.randn(shape, dtype=torch.bfloat16, device=device).requires_grad_() for _ in range(3))

    def step() -> object:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(out.sum(), (q, k, v))

    scores = shape[0] * shape[1] * shape[2] ** 2
    return 7 * 2 * scores * channels / 2 / seconds(step, device)


def _copies(device: str, copy: Callable[[Tensor], object], *, passes: int) -> float:
    source = torch.zeros(_COPIED[device], dtype=torch.uint8, device=device)
    return passes * source.numel() / seconds(lambda: copy(source), device)


def _to_host() -> float:
    target = torch.empty(_COPIED["cuda"], dtype=torch.uint8, pin_memory=True)
    return _copies("cuda", lambda source: target.copy_(source, non_blocking=True), passes=1)


def _storage(folder: Path) -> float:
    """Bytes/s of writing a file through to the disk. What is read right after may come from memory: it is not timed."""
    data = os.urandom(2**20) * (_STORED // 2**20)

    def write() -> None:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return len(data) / seconds(write, "cpu", repeats=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
