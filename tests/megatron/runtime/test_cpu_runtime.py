from __future__ import annotations

import subprocess
import sys
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32, get_grad_norm_fp32
from megatron.core.tensor_parallel import random as megatron_random

from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from tests.megatron.runtime.patchable import patchable_state

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here: nothing is served")


def test_does_nothing_where_there_is_cuda() -> None:
    before = patchable_state()
    with mock.patch("torch.cuda.is_available", return_value=True):
        during = before | {"torch.cuda.is_available": torch.cuda.is_available}
        with cpu_runtime():
            assert patchable_state() == during


def test_importing_the_package_patches_nothing() -> None:
    """In a fresh interpreter that believes it has CUDA: only Megatron's and torch's own objects are there."""
    code = """
import torch, megatron.core.tensor_parallel.random as megatron_random
torch.cuda.is_available = lambda: True
watched = [(torch.cuda, "torch.cuda"), (torch.cuda.random, "torch.cuda.random"), (megatron_random, "megatron")]
before = [dict(vars(module)) for module, _ in watched]
from nemo_sspo.megatron.runtime import cpu_runtime
from nemo_sspo.megatron.runtime import forked_ranks
from nemo_sspo.megatron.head import recompute as head
from nemo_sspo.megatron.loss import hidden_states
from nemo_sspo.megatron.layers import spec as layers
from nemo_sspo.megatron.loss import pooling
from nemo_sspo.megatron.loss import loss as preference_loss
for (module, name), old in zip(watched, before):
    changed = [key for key in old if vars(module)[key] is not old[key]]
    assert not changed, (name, changed)
assert not torch.overrides._get_current_function_mode_stack()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@without_cuda
def test_everything_is_restored_also_after_an_error() -> None:
    before = patchable_state()
    with pytest.raises(ZeroDivisionError), cpu_runtime():
        assert patchable_state() != before
        raise ZeroDivisionError
    assert patchable_state() == before


@without_cuda
def test_nesting_serves_until_the_outermost_ends() -> None:
    with cpu_runtime():
        with cpu_runtime():
            pass
        assert torch.zeros(1, device="cuda").device.type == "cpu"
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(1, device="cuda")


@without_cuda
def test_cuda_arguments_become_cpu_ones() -> None:
    x = torch.arange(3.0)
    with cpu_runtime():
        assert torch.zeros(2, device="cuda:0").device.type == "cpu"
        assert torch.zeros(2, device=torch.cuda.current_device()).device.type == "cpu"
        assert x.cuda() is x
        assert x.to("cuda", torch.float64).dtype == torch.float64
        assert x.to(device="cuda", dtype=torch.int32).tolist() == [0, 1, 2]
        assert not torch.tensor([1.0], pin_memory=True).is_pinned()


@without_cuda
def test_only_megatron_is_told_that_tensors_are_cuda_tensors() -> None:
    scope = {"__name__": "megatron.core.some.module", "x": torch.zeros(1)}
    with cpu_runtime():
        exec("answer = x.type()", scope)
        assert scope["answer"] == "torch.cuda.FloatTensor"
        assert torch.zeros(1).type() == "torch.FloatTensor"


@without_cuda
def test_megatrons_gradient_clipping_runs(one_rank: torch.distributed.ProcessGroup) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    with cpu_runtime():
        norm = get_grad_norm_fp32([parameter.grad], grad_stats_parallel_group=one_rank)
        clip_grad_by_total_norm_fp32([parameter], max_norm=1.0, total_norm=norm)
    assert norm == pytest.approx(5.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


@without_cuda
def test_tracked_generators_are_independent_and_reproducible() -> None:
    def draws() -> tuple[float, float, float]:
        torch.manual_seed(5)
        tracker = megatron_random.CudaRNGStatesTracker()
        tracker.add("region", seed=11)
        first_outside = torch.rand(()).item()
        with tracker.fork("region"):
            inside = torch.rand(()).item()
        return first_outside, inside, torch.rand(()).item()

    with cpu_runtime():
        assert draws() == draws()
        outside, inside, then = draws()
    torch.manual_seed(5)
    assert (outside, then) == (torch.rand(()).item(), torch.rand(()).item())  # forking left the main stream alone
    torch.manual_seed(11)
    assert inside == torch.rand(()).item()
