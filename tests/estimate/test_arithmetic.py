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
from nemo_sspo.estimate.parameters import held_parameters, policy_parameters, state_bytes, weights
from nemo_sspo.estimate.rank import StepPairs, TrainingRank, distinct_ranks
from nemo_sspo.estimate.rank_memory import microbatches_under_way, rank_memory
from nemo_sspo.estimate.speeds import read_speeds
from nemo_sspo.estimate.step_time import step_time
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
    held = [sum(map(sum, weights(stage, 0))) for stage in distinct_ranks(cut)]
    assert 2 * sum(held) - norms == policy_parameters(rank_of())


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
