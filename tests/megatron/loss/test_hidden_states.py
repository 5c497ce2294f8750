"""Hidden states of the tiny parity model, inside one forked rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import Microbatch, padded_microbatch
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, model_inputs, output_weight, unwrap
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.distributed import tiny_model, world

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Megatron over gloo runs only where CUDA is absent")


def microbatch() -> Microbatch:
    return padded_microbatch(world.pairs()[:2], [0.5, 0.5], RowShape())


def with_model(fn: Callable[[torch.nn.Module], Any], *, tied: bool = False) -> Any:
    """`fn` of the data-parallel-wrapped tiny model."""

    def rank() -> Any:
        with cpu_runtime():
            dist.init_process_group("gloo")
            parallel_state.initialize_model_parallel()
            model_parallel_cuda_manual_seed(1)
            (model,) = tiny_model.build(world.ONE_RANK, tied=tied, dropout=0.0)
            return fn(model)

    (result,) = run_forked(rank, 1, timeout=60)
    return result


@pytest.mark.parametrize("tied", [False, True])
def test_states_times_output_weight_are_the_models_logits(tied: bool) -> None:
    def both(model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        hidden_SBH = forward_to_hidden_states(model, microbatch())
        logits_BSV = model(**model_inputs(microbatch()))
        return (hidden_SBH @ output_weight(model).T).transpose(0, 1).detach(), logits_BSV.detach()

    ours, megatrons = with_model(both, tied=tied)
    assert megatrons.shape[-1] == world.PADDED_VOCAB
    torch.testing.assert_close(ours, megatrons)


def test_no_logits_are_computed() -> None:
    def products(model: torch.nn.Module) -> tuple[int, int]:
        layer = unwrap(model).output_layer
        with mock.patch.object(layer, "_forward_impl", wraps=layer._forward_impl) as product:
            forward_to_hidden_states(model, microbatch())
            ours = product.call_count
            model(**model_inputs(microbatch()))
            return ours, product.call_count

    assert with_model(products) == (0, 1)


def test_hooks_of_the_output_layer_run() -> None:
    """The distributed optimizer waits in one for the parameters that another rank has updated."""

    def hooked(model: torch.nn.Module) -> int:
        calls: list[torch.nn.Module] = []
        unwrap(model).output_layer.register_forward_pre_hook(lambda module, _inputs: calls.append(module))
        forward_to_hidden_states(model, microbatch())
        return len(calls)

    assert with_model(hooked) == 1


def test_the_model_is_whole_again_after_an_error() -> None:
    def after(model: torch.nn.Module) -> bool:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        hook = unwrap(model).output_layer.register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            forward_to_hidden_states(model, microbatch())
        hook.remove()
        return "forward" in vars(unwrap(model).output_layer)

    assert not with_model(after)


def test_unsupported_models_are_refused_by_what_they_have() -> None:
    def refused(model: torch.nn.Module) -> None:
        gpt: GPTModel = unwrap(model)
        gpt.mtp_process = True
        with pytest.raises(UserError, match="multi-token prediction"):
            forward_to_hidden_states(model, microbatch())
        gpt.output_layer.bias = torch.nn.Parameter(torch.zeros(1))
        with pytest.raises(UserError, match="bias"):
            output_weight(model)

    with_model(refused)
    with pytest.raises(UserError, match="Linear is not"):
        unwrap(torch.nn.Linear(1, 1))
