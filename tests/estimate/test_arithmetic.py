"""The parts of an estimate against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.config.precisions import Bf16Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.failures import failures
from nemo_sspo.estimate.fit import fullest, layouts_that_fit
from nemo_sspo.estimate.flops import step_flops
from nemo_sspo.estimate.parameters import (
    active_parameters,
    held_parameters,
    policy_parameters,
    state_bytes,
    weights,
)
from nemo_sspo.estimate.rank import StepPairs, TrainingRank, distinct_ranks
from nemo_sspo.estimate.rank_memory import microbatches_under_way, rank_memory
from nemo_sspo.estimate.speeds import read_speeds
from nemo_sspo.estimate.step_time import step_time
from nemo_sspo.megatron.models.families import FAMILIES
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.shape import Shape

SIZES = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
SPEEDS = read_speeds()


MIXTURE = SIZES | {
    **{"model_type": "qwen3_moe", "head_dim": 32, "num_experts": 16, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 64, "mlp_only_layers": [0], "norm_topk_prob": True},
}
"""Seven of eight layers have experts."""
EXPERT = 3 * 256 * 64


def mixture_of(**parallel: int) -> TrainingRank:
    config = HFConfig({**FAMILIES["qwen3_moe"].defaults, **MIXTURE}, Path("config.json"))
    return replace(rank_of(**parallel), model=Shape.of(config), trainer="core")


def rank_of(*, train: Train | None = None, pairs: int = 16, **parallel: int) -> TrainingRank:
    layout = Parallel(**parallel, sequence=parallel.get("tensor", 1) > 1)  # type: ignore[arg-type]
    shape = Shape.of(HFConfig(SIZES, Path("config.json")))
    return TrainingRank(shape, layout, train or Train(), Bf16Precision(), True, StepPairs(pairs, 24, 40))


def test_the_ranks_of_a_layout_have_the_policy_between_them() -> None:
    """By hand: 8 layers, an embedding and a head."""
    layer = 256 * (256 + 2 * 128) + 256 * 256 + 3 * 256 * 512 + 2 * 256
    assert policy_parameters(rank_of()) == 8 * layer + 2 * 1024 * 256 + 256
    cut = rank_of(tensor=2, pipeline=4)
    norms = 8 * 2 * 256 + 256  # which every tensor-parallel rank has
    held = [sum(weights(stage, 0)) for stage in distinct_ranks(cut)]
    assert 2 * sum(held) - norms == policy_parameters(rank_of())


def test_a_mixture_has_all_experts_and_a_token_meets_its_own() -> None:
    """By hand: attention, norms and those of query and key; one dense layer, seven of 16 experts and a router."""
    layer = 256 * (256 + 2 * 128) + 256 * 256 + 2 * 256 + 2 * 32
    ends = 2 * 1024 * 256 + 256
    rank = mixture_of()
    assert policy_parameters(rank) == 8 * layer + ends + 3 * 256 * 512 + 7 * (16 * 256 + 16 * EXPERT)
    assert policy_parameters(rank) - active_parameters(rank) == 7 * 14 * EXPERT
    assert active_parameters(rank_of()) == policy_parameters(rank_of())


@pytest.mark.parametrize("layout", [{"data": 4}, {"data": 4, "pipeline": 2}, {"tensor": 2, "data": 2}])
def test_ranks_share_the_experts_and_their_replicas_the_optimizer(layout: dict[str, int]) -> None:
    whole, cut = mixture_of(**layout), mixture_of(**layout, expert=4)
    of_stages = list(zip(distinct_ranks(whole), distinct_ranks(cut), strict=True))
    tensor = layout.get("tensor", 1)
    of_all = sum(sum(weights(stage, 0)) - sum(weights(shared, 0)) for stage, shared in of_stages)
    assert of_all == 7 * 16 * EXPERT // tensor - 7 * 4 * EXPERT
    # Four ranks hold the optimizer's state of all, however they share it.
    held = sum(held_parameters(stage) for stage, _ in of_stages)
    assert sum(held_parameters(shared) for _, shared in of_stages) == pytest.approx(held, rel=0.02)


def test_products_of_a_mixture_by_hand() -> None:
    rank = replace(mixture_of(), pairs=StepPairs(2, 24, 40))
    met = 8 * (256 * (256 + 2 * 128) + 256 * 256) + 3 * 256 * 512 + 7 * (2 * EXPERT + 16 * 256)
    assert step_flops(rank, Batch.of(rank)).layers == 6 * 2 * 2 * 64 * met


def test_experts_of_other_nodes_are_waited_for() -> None:
    """All that a rank of one layout sends within a replica are tokens on their way to experts."""
    near, far = (step_time(mixture_of(data=4, expert=4), SPEEDS, gpus) for gpus in (4, 2))
    assert far.inside == pytest.approx(near.inside * SPEEDS.in_node / SPEEDS.between_nodes, rel=0.01)
    assert step_time(mixture_of(data=4), SPEEDS, 4).inside < near.inside / 100


def test_each_group_of_ranks_has_its_buffers() -> None:
    """Four replicas that have all experts: their own group. That share them by two: also the pairs that share, and the
    pairs that have the same."""
    alone, shared = fullest(mixture_of(data=4)), fullest(mixture_of(data=4, expert=2))
    beside = [held.allowance - 0.03 * held.memory.total for held in (alone, shared)]
    assert beside[1] - beside[0] == pytest.approx(2 * 0.4 * 2**30, rel=1e-3)


def test_layouts_of_a_mixture_share_its_experts() -> None:
    rank = mixture_of(tensor=2, data=4)
    found = {layout.parallel.expert for layout in layouts_that_fit(rank, rank, SPEEDS, 8)}
    assert found == {1, 2, 4, 8}
    dense = rank_of(tensor=2, data=4)
    assert {layout.parallel.expert for layout in layouts_that_fit(dense, dense, SPEEDS, 8)} == {1}


def test_replicas_share_the_optimizer() -> None:
    whole, shared = held_parameters(rank_of()), held_parameters(rank_of(data=4))
    assert shared == whole // 4


def test_products_of_a_step_by_hand() -> None:
    """Six operations for each weight and token; the head meets response tokens alone."""
    rank = rank_of(pairs=2)
    batch = Batch.of(rank)
    layer = 256 * (256 + 2 * 128) + 256 * 256 + 3 * 256 * 512
    flops = step_flops(rank, batch)
    assert flops.layers == 6 * 2 * 2 * 64 * 8 * layer
    assert flops.head == 6 * 2 * 2 * 40 * 1024 * 256
    again = step_flops(rank_of(pairs=2, train=Train(recompute="full")), batch)
    assert 3 * again.layers == 4 * flops.layers


@given(pipeline=st.sampled_from([1, 2, 4]), pairs=st.integers(1, 32))
def test_stages_wait_for_each_other_as_long_as_the_bubble_lasts(pipeline: int, pairs: int) -> None:
    """(PP - 1) / microbatches of the time that the slowest stage works."""
    rank = rank_of(pipeline=pipeline, pairs=pairs)
    time = step_time(rank, SPEEDS, 8)
    bubble = (pipeline - 1) / Batch.of(rank).microbatches
    assert time.waiting == pytest.approx(bubble * (time.computing + time.inside))


def test_one_gpu_sends_nothing_and_waits_for_nobody() -> None:
    time = step_time(rank_of(), SPEEDS, 8)
    assert time.inside < 1e-6
    assert time.waiting == 0


def test_interleaved_stages_wait_less_and_hold_more() -> None:
    plain, interleaved = rank_of(pipeline=4), rank_of(pipeline=4, virtual_pipeline=2)
    assert step_time(interleaved, SPEEDS, 8).waiting < step_time(plain, SPEEDS, 8).waiting
    batch = Batch.of(plain)
    assert microbatches_under_way(interleaved, batch) > microbatches_under_way(plain, batch) == 4
    assert microbatches_under_way(plain.at(3), batch) == 1


def test_a_slower_network_is_felt_where_ranks_lie_in_several_nodes() -> None:
    rank = rank_of(tensor=4)
    near, far = step_time(rank, SPEEDS, 8), step_time(rank, SPEEDS, 2)
    assert far.inside == pytest.approx(near.inside * SPEEDS.in_node / SPEEDS.between_nodes)


def test_uneven_batches_are_filled_up() -> None:
    """17 pairs over 2 replicas of 3 pairs a microbatch: 9 pairs, three microbatches each."""
    batch = Batch.of(rank_of(pairs=17, data=2, train=Train(micro_batch_size=3)))
    assert batch.microbatches == 3
    packed = Batch.of(rank_of(pairs=17, data=2, train=Train(packing=True, pack_tokens=600)))
    assert (packed.microbatches, packed.tokens) == (3, 3 * 128)  # four fit a row; six rows need three at most


def test_layouts_that_fit_do_and_come_fastest_first() -> None:
    rank = rank_of(tensor=2, data=4)
    found = layouts_that_fit(rank, rank, SPEEDS, 8)
    times = [layout.time.total for layout in found]
    assert times == sorted(times)
    assert all(layout.parallel.world_size == 8 for layout in found)
    small = SPEEDS.model_copy(update={"memory_gib": 1e-3})
    assert layouts_that_fit(rank, rank, small, 8) == []
    assert not fullest(rank).fits(small)


def test_layouts_try_chunks_of_stages_and_whole_sequences() -> None:
    rank = rank_of(context=2, data=4)
    found = layouts_that_fit(rank, rank, SPEEDS, 8)
    assert {layout.parallel.context for layout in found} == {1, 2}
    chunked = [layout for layout in found if layout.parallel.virtual_pipeline]
    assert chunked
    for layout in chunked:
        assert layout.parallel.pipeline > 1
        assert rank.model.layers % (layout.parallel.pipeline * layout.parallel.virtual_pipeline) == 0
        (whole,) = [
            other
            for other in found
            if other.parallel == layout.parallel.model_copy(update={"virtual_pipeline": None})
            and other.recompute == layout.recompute
        ]
        assert layout.time.waiting < whole.time.waiting


@given(factor=st.floats(0.2, 5).filter(lambda factor: not math.isclose(factor, 1, rel_tol=0.01)))
def test_no_other_interval_between_states_loses_less(factor: float) -> None:
    found = failures(112 * 10**9, 8, per_gpu_hour=2e-5, to_host=25e9, restart_seconds=0)
    assert found is not None
    interval, between = factor * found.interval_seconds, 3600 * found.hours_between
    assert found.save_seconds / interval + interval / (2 * between) > found.lost_share


def test_nothing_is_lost_where_nothing_fails() -> None:
    assert failures(10**9, 8, per_gpu_hour=0, to_host=1e9, restart_seconds=60) is None


def test_the_fullest_rank_is_the_first_of_a_pipeline() -> None:
    """It has the most microbatches under way."""
    held = fullest(replace(rank_of(pipeline=4, pairs=64), number=2))
    assert held.rank.number == 0


def test_adapters_without_sequence_parallelism_are_not_estimated() -> None:
    rank = rank_of(tensor=2, train=Train(peft="lora"))
    rank = replace(rank, parallel=rank.parallel.model_copy(update={"sequence": False}))
    with pytest.raises(UserError, match=r"parallel\.sequence=true"):
        step_time(rank, SPEEDS, 8)


def test_a_state_of_adapters_has_no_moments_of_what_is_frozen() -> None:
    whole, adapted = rank_of(), rank_of(train=Train(peft="lora", lora_rank=8))
    assert state_bytes(whole) == 14 * policy_parameters(whole)
    of_layer = 8 * ((256 + 512) + (256 + 256) + (256 + 1024) + (512 + 256))
    assert state_bytes(adapted) == 2 * policy_parameters(whole) + 12 * 8 * of_layer


def test_the_context_parallel_rank_with_most_responses_counts() -> None:
    """Of 32 tokens the first rank has the first and the last quarter, and most of the response lies between."""
    rank = replace(rank_of(context=2), pairs=StepPairs(16, 15, 17))
    assert [sum(Batch.of(part).scored) for part in distinct_ranks(rank)] == [2 * 7, 2 * 10]
    totals = [rank_memory(part).total for part in distinct_ranks(rank)]
    assert fullest(rank).memory.total == totals[1] > totals[0]
