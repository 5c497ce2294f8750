"""Faults that give wrong numbers silently, planted in the ranks: the parity comparison must catch every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import Microbatch
from nemo_sspo.megatron.head import one_pass as one_pass_head
from nemo_sspo.megatron.head import tile_torch
from nemo_sspo.megatron.layers import attention_mask, flex_attention
from nemo_sspo.megatron.layers.flex_attention import FlexCoreAttention
from nemo_sspo.megatron.loss import hidden_states, pooling, step
from nemo_sspo.megatron.loss import loss as preference_loss
from tests.distributed import ranks, world
from tests.distributed.architectures import GEMMA2
from tests.distributed.compare import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Deviation, deviation, truth_of
from tests.distributed.ranks import Case, run_cases
from tests.distributed.world import BY_NAME
from tests.megatron.flex_on_cpu import flex_on_cpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Megatron over gloo runs only where CUDA is absent")

MARGIN = 100.0
"""A fault must stand out by this many tolerances: none of these is a matter of rounding."""


class _SummedInBothDirections(torch.autograd.Function):
    """The natural mistake: differentiate an all-reduce as an all-reduce although every rank computes the same loss."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        value = value.clone()
        dist.all_reduce(value, group=group)
        return value

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def repulsion_times_tp() -> AbstractContextManager:
    duplicated = lambda value, group: _SummedInBothDirections.apply(value, group)  # noqa: E731
    return mock.patch.object(pooling, "reduce_from_tensor_model_parallel_region", duplicated)


def repulsion_without_gradient() -> AbstractContextManager:
    pool = preference_loss.pool_responses
    return mock.patch.object(preference_loss, "pool_responses", lambda *args, **kw: pool(*args, **kw).detach())


def loss_times_cp() -> AbstractContextManager:
    right = step.schedule_loss

    def wrong(loss: Tensor, **kwargs: int) -> Tensor:
        return right(loss, **kwargs) * parallel_state.get_context_parallel_world_size()

    return mock.patch.object(step, "schedule_loss", wrong)


def gradient_of_the_forward_pass_as_it_is() -> AbstractContextManager:
    """The one-pass head forgets what the schedule multiplied the loss by."""
    return mock.patch.object(one_pass_head, "gradient_factor", return_value=torch.ones(()))


def cap_left_out_of_the_backward() -> AbstractContextManager:
    return mock.patch.object(tile_torch, "softcap_derivative", torch.ones_like)


def window_off_by_one() -> AbstractContextManager:
    """It reaches one token further, as where the query is not counted as one of its keys."""
    right = attention_mask.AttentionMask.of

    def wrong(part_T: Tensor, position_T: Tensor, window: int | None, *args: Any) -> attention_mask.AttentionMask:
        return right(part_T, position_T, None if window is None else window + 1, *args)

    return mock.patch.object(attention_mask.AttentionMask, "of", wrong)


def rejected_sees_chosen() -> AbstractContextManager:
    """A shared prompt's two responses under the plain causal mask of their pair."""
    right = attention_mask.shared_places

    def wrong(part_bounds: Tensor, length: int) -> tuple[Tensor, Tensor]:
        part_T, position_T = right(part_bounds, length)
        return torch.where(part_T % 3 == 2, part_T - 1, part_T), position_T

    return mock.patch.object(attention_mask, "shared_places", wrong)


def last_token_of_the_prompt_one_too_far() -> AbstractContextManager:
    """It stands where the response begins, as if the prompt's part held all of the prompt."""
    right = attention_mask.shared_places

    def wrong(part_bounds: Tensor, length: int) -> tuple[Tensor, Tensor]:
        part_T, position_T = right(part_bounds, length)
        begins_T = (part_T % 3 > 0) & (part_T != part_T.roll(1))
        return part_T, position_T + begins_T.int()

    return mock.patch.object(attention_mask, "shared_places", wrong)


@contextmanager
def on_cpu(fault: Callable[[], AbstractContextManager] = nullcontext) -> Iterator[None]:
    with flex_on_cpu(), fault():
        yield


def attention_cap_left_out_of_the_backward() -> AbstractContextManager:
    def straight(x: Tensor, cap: float) -> Tensor:
        return x + (cap * torch.tanh(x / cap) - x).detach()

    return mock.patch.object(flex_attention, "soft_cap", straight)


def positions_run_on() -> AbstractContextManager:
    """The rejected response's positions follow the chosen's instead of the prompt's."""
    return mock.patch.object(hidden_states, "rotary_by_position", return_value=nullcontext())


def padded_vocabulary_in_the_softmax() -> AbstractContextManager:
    return mock.patch.object(world, "VOCAB", world.PADDED_VOCAB)


@contextmanager
def changed_microbatches(change: Callable[[list[Microbatch]], list[Microbatch]]) -> Iterator[None]:
    right = ranks.Step.microbatches
    with mock.patch.object(ranks.Step, "microbatches", lambda step: change(right(step))):
        yield


def mean_over_ranks(microbatches: list[Microbatch]) -> list[Microbatch]:
    """Each data-parallel rank takes the mean over its own pairs, and the ranks' means are averaged."""
    own = sum(int((m.weight_P > 0).sum()) for m in microbatches)
    ranks_ = parallel_state.get_data_parallel_world_size()
    return [replace(m, weight_P=(m.weight_P > 0) / (own * ranks_)) for m in microbatches]


def labels_off_by_one(microbatches: list[Microbatch]) -> list[Microbatch]:
    """Token coordinates taken for label coordinates."""
    return [replace(m, response_index_BS=m.token_response_index_BS) for m in microbatches]


def prompt_in_the_sum(microbatches: list[Microbatch]) -> list[Microbatch]:
    changed = []
    for m in microbatches:
        index = m.response_index_BS.clone()
        for row, response in enumerate(index):  # padded: row r holds response r
            response[: int((response >= 0).int().argmax())] = row
        changed.append(replace(m, response_index_BS=index))
    return changed


def end_token_missing(microbatches: list[Microbatch]) -> list[Microbatch]:
    predicts_last = [torch.roll(m.last_token_index_BS, -1, dims=1) >= 0 for m in microbatches]
    return [
        replace(m, response_index_BS=m.response_index_BS.masked_fill(last, -1))
        for m, last in zip(microbatches, predicts_last, strict=True)
    ]


@contextmanager
def another_checkpoint(model: GPTModel) -> Iterator[None]:
    """The reference comes from weights that one small optimizer step has moved."""
    before = [parameter.data.clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data.mul_(1.001)
    yield
    for parameter, data in zip(model.parameters(), before, strict=True):
        parameter.data.copy_(data)


def measured(layout: str, case: Case) -> Deviation:
    return deviation(run_cases(BY_NAME[layout], [case])[case.name], truth_of(case))


def stands_out(found: Deviation) -> bool:
    return found.loss > MARGIN * LOSS_TOLERANCE or found.gradient > MARGIN * GRADIENT_TOLERANCE


FAULTS = [
    ("TP2 SP", Case("repulsion x TP", fault=repulsion_times_tp)),
    ("CP2", Case("repulsion x CP", fault=repulsion_times_tp)),
    ("TP2", Case("repulsion without gradient", fault=repulsion_without_gradient)),
    ("CP2", Case("loss x CP", fault=loss_times_cp)),
    (
        "DP2",
        Case("mean over ranks", fault=partial(changed_microbatches, mean_over_ranks), pairs=world.pairs()[:7]),
    ),
    ("TP2", Case("label shift", fault=partial(changed_microbatches, labels_off_by_one))),
    ("TP2", Case("prompt in the sum", fault=partial(changed_microbatches, prompt_in_the_sum))),
    ("TP2", Case("end token missing", fault=partial(changed_microbatches, end_token_missing))),
    ("TP2", Case("padded vocabulary", fault=padded_vocabulary_in_the_softmax)),
    ("DP2", Case("one-pass gradient unscaled", one_pass=True, fault=gradient_of_the_forward_pass_as_it_is)),
    ("TP2", Case("rejected sees chosen", packed=True, shared=True, fault=rejected_sees_chosen)),
    ("TP2", Case("positions run on", packed=True, shared=True, fault=positions_run_on)),
    ("CP2", Case("last token too far", packed=True, shared=True, fault=last_token_of_the_prompt_one_too_far)),
    ("PP2", Case("another reference", at_reference=True, reference_fault=another_checkpoint)),
    ("TP2", Case("cap not differentiated", architecture=GEMMA2, tied=True, fault=cap_left_out_of_the_backward)),
    (
        "TP2",
        Case("the same in one pass", architecture=GEMMA2, tied=True, one_pass=True, fault=cap_left_out_of_the_backward),
    ),
    ("CP2", Case("window off by one", architecture=GEMMA2, tied=True, packed=True, fault=window_off_by_one)),
    *[
        (
            "one rank",
            Case(
                f"flex: {fault.__name__}",
                architecture=GEMMA2,
                tied=True,
                packed=True,
                shared=True,
                micro_batch_size=8,
                attention=FlexCoreAttention,
                fault=partial(on_cpu, fault),
            ),
        )
        for fault in (window_off_by_one, rejected_sees_chosen, attention_cap_left_out_of_the_backward)
    ],
    ("TP2", Case("dropout left on", dropout=0.1, at_reference=True)),
]


@pytest.mark.parametrize(("layout", "case"), FAULTS, ids=[case.name for _, case in FAULTS])
def test_planted_fault_is_caught(layout: str, case: Case) -> None:
    assert stands_out(measured(layout, case))


@pytest.mark.parametrize("layout", sorted({layout for layout, _ in FAULTS}))
def test_without_a_fault_nothing_stands_out(layout: str) -> None:
    """So that the faults above are caught for being faults."""
    assert measured(layout, Case("no fault")).is_within_tolerance


@pytest.mark.parametrize(("layout", "case"), [fault for fault in FAULTS if fault[1].at_reference])
def test_first_step_alone_shows_a_wrong_reference(layout: str, case: Case) -> None:
    """What a run can check by itself, without the truth: d = 0 at the first step."""
    metrics = run_cases(BY_NAME[layout], [case])[case.name].metrics
    assert abs(metrics["d_chosen"]) > 1e-3
