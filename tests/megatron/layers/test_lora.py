"""Adapters on megatron-core alone; `test_trained_adapters.py` trains them."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import padded_microbatch
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.layers.adapter import Adapters
from nemo_sspo.megatron.layers.lora import add_adapters, merged_adapters
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, unwrap
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.megatron.runtime.groups import Groups
from tests.distributed import tiny_model, world
from tests.distributed.world import Layout

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Megatron over gloo runs only where CUDA is absent")

LAYOUTS = [world.ONE_RANK, Layout("TP2", tensor=2), Layout("TP2 SP", tensor=2, sequence=True)]


def hidden_states(layout: Layout) -> list[tuple[Tensor, ...]]:
    """Of each rank: without adapters, with new ones, with trained ones, with those merged, and taken off again."""

    def rank() -> tuple[Tensor, ...]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            parallel_state.initialize_model_parallel(layout.tensor)
            model_parallel_cuda_manual_seed(1)
            (chunk,) = tiny_model.build(layout, tied=False, dropout=0.0)
            with torch.no_grad():
                return _forward_passes(unwrap(chunk))

    return run_forked(rank, layout.world_size, timeout=60)


def _forward_passes(model: GPTModel) -> tuple[Tensor, ...]:
    batch = padded_microbatch(world.pairs(2), [0.5, 0.5], RowShape(length=world.PADDED_ROW))
    found = [forward_to_hidden_states(model, batch)]
    add_adapters(model, Adapters(rank=4, alpha=10.0, seed=1), Groups.of_megatron().tp)
    found.append(forward_to_hidden_states(model, batch))
    for name, parameter in model.named_parameters():
        if name.endswith("adapter.linear_out.weight"):
            parameter.normal_(std=0.1)
    found.append(forward_to_hidden_states(model, batch))
    with merged_adapters(model):
        found.append(forward_to_hidden_states(model, batch))
    found.append(forward_to_hidden_states(model, batch))
    return tuple(found)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_merged_matrices_do_what_adapters_did(layout: Layout) -> None:
    for without, new, trained, merged, apart in hidden_states(layout):
        assert torch.equal(new, without)
        assert (trained - without).abs().max() > 0.1
        torch.testing.assert_close(merged, trained, rtol=1e-5, atol=1e-5)
        assert torch.equal(apart, trained)
