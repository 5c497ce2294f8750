"""The bf16 model with Megatron's local layers against the truth; `tests/gpu` holds the same bounds on a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.truth import truth
from tests.gpu.step import GRADIENT_BOUND, LOSS_BOUND, bf16_weights, build, distance, measure

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here: tests/gpu runs it")


@pytest.mark.parametrize(
    ("micro_batch_size", "layout", "tied", "one_pass", "architecture"),
    [
        (1, {}, False, False, LLAMA),
        (4, {"packed": True}, True, False, LLAMA),
        (4, {}, False, True, LLAMA),
        (4, {"packed": True}, True, False, GEMMA2),
        (4, {"shared": True}, True, False, GEMMA2),
    ],
)
def test_only_rounding_is_between_bf16_and_the_truth(
    micro_batch_size: int, layout: dict[str, bool], tied: bool, one_pass: bool, architecture: Architecture
) -> None:
    weights = bf16_weights(tied=tied, architecture=architecture)
    expected = truth(weights, world.pairs(), architecture=architecture, dtype=torch.float64)

    def rank() -> tuple[float, float]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            parallel_state.initialize_model_parallel()
            model_parallel_cuda_manual_seed(1)
            model = build(tied=tied, architecture=architecture)
            found = measure(model, world.pairs(), micro_batch_size=micro_batch_size, one_pass=one_pass, **layout)
            return distance(found, expected.loss, expected.grads)

    ((loss, gradient),) = run_forked(rank, 1, timeout=60)
    assert 0 < loss < LOSS_BOUND
    assert 0 < gradient < GRADIENT_BOUND
