"""FP8 products of Transformer Engine: against the same model in bf16, and without gradients against with them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
if torch.cuda.get_device_capability() < (9, 0):
    pytest.skip("FP8 needs a Hopper-class GPU", allow_module_level=True)
pytest.importorskip("transformer_engine.pytorch")

import torch.distributed as dist

from tests.distributed import world
from tests.gpu.step import build, distance, log_probs, measure

# E4M3 keeps 4 bits and E5M2, which holds gradients, 3. Products rounded so on the host, each tensor scaled by its own
# largest value, differ by 4e-3 (loss) and 0.28 (gradients as one vector) on this model.
LOSS_BOUND, GRADIENT_BOUND = 3e-2, 5e-1
# Without a gradient attention may take another kernel, which rounds to bf16 elsewhere. FP8 rounds 16 times as coarsely.
SAME = 1e-3
TENSORWISE: dict[str, Any] = {"fp8": "hybrid", "fp8_recipe": "tensorwise"}


def test_fp8_stays_near_bf16(one_gpu: dist.ProcessGroup) -> None:
    expected = measure(build(), world.pairs(), micro_batch_size=4)
    found = measure(build(**TENSORWISE), world.pairs(), micro_batch_size=4)
    loss, gradient = distance(found, expected.loss, expected.grads)
    assert 0 < loss < LOSS_BOUND  # exactly 0 would be bf16 once more
    assert 0 < gradient < GRADIENT_BOUND


def test_the_reference_is_the_model_that_trains(one_gpu: dist.ProcessGroup) -> None:
    """Before any training pass, and after some: they would teach a recipe with a history other scales."""
    with torch.inference_mode():  # as Lightning computes the reference
        reference_P2 = log_probs(build(**TENSORWISE).eval(), world.pairs())
    model = build(**TENSORWISE)
    first_P2 = log_probs(model, world.pairs())
    for _ in range(3):
        measure(model, world.pairs(), micro_batch_size=4)
    later_P2 = log_probs(model, world.pairs())
    assert first_P2.requires_grad
    assert not reference_P2.requires_grad
    torch.testing.assert_close(first_P2.detach(), reference_P2, rtol=SAME, atol=0)
    torch.testing.assert_close(later_P2.detach(), reference_P2, rtol=SAME, atol=0)
