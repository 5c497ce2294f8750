"""bf16 on one GPU against the plain truth in double precision, from equal weights. Only rounding may differ."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import torch.distributed as dist
from torch.overrides import _get_current_function_mode_stack

from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from tests.distributed import world
from tests.distributed.architectures import GEMMA2
from tests.distributed.truth import truth
from tests.gpu.step import GRADIENT_BOUND, LOSS_BOUND, bf16_weights, build, distance, measure
from tests.megatron.runtime.patchable import patchable_state


@pytest.mark.parametrize("one_pass", [False, True], ids=["recompute", "one pass"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("micro_batch_size", "packed"), [(1, False), (4, False), (4, True)], ids=["padded 1", "padded 4", "packed 4"]
)
def test_loss_and_gradients_are_the_truths(
    one_gpu: dist.ProcessGroup, micro_batch_size: int, packed: bool, tied: bool, one_pass: bool
) -> None:
    model = build(tied=tied)
    found = measure(model, world.pairs(), micro_batch_size=micro_batch_size, packed=packed, one_pass=one_pass)
    expected = truth(bf16_weights(tied=tied), world.pairs(), dtype=torch.float64)
    loss, gradient = distance(found, expected.loss, expected.grads)
    assert loss < LOSS_BOUND
    assert gradient < GRADIENT_BOUND


@pytest.mark.parametrize("one_pass", [False, True], ids=["recompute", "one pass"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_gemma_2s_loss_and_gradients_are_the_truths(one_gpu: dist.ProcessGroup, packed: bool, one_pass: bool) -> None:
    model = build(tied=True, architecture=GEMMA2)
    found = measure(model, world.pairs(), micro_batch_size=4, packed=packed, one_pass=one_pass)
    weights = bf16_weights(tied=True, architecture=GEMMA2)
    expected = truth(weights, world.pairs(), architecture=GEMMA2, dtype=torch.float64)
    loss, gradient = distance(found, expected.loss, expected.grads)
    assert loss < LOSS_BOUND
    assert gradient < GRADIENT_BOUND


def test_the_cpu_runtime_is_inert() -> None:
    before = patchable_state()
    with cpu_runtime():
        assert patchable_state() == before
        assert not _get_current_function_mode_stack()
        assert torch.zeros(1, device="cuda").is_cuda
        assert torch.zeros(1).cuda().is_cuda


def test_nemos_cpu_runtime_is_inert() -> None:
    pytest.importorskip("nemo.collections.llm")
    from nemo.lightning.io import pl as nemo_checkpoint_io

    from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime

    before = patchable_state(), nemo_checkpoint_io._fix_tensors_device
    with nemo_cpu_runtime():
        assert (patchable_state(), nemo_checkpoint_io._fix_tensors_device) == before
