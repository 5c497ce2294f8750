from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import (
    by_length,
    first_fit_decreasing,
    level_packs,
    shuffled,
    steps_per_epoch,
)
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from tests.megatron.worlds import make_pairs


@settings(max_examples=50)
@given(
    pairs=st.integers(1, 40),
    batch=st.integers(1, 16),
    micro=st.integers(1, 4),
    replicas=st.integers(1, 3),
    packing=st.booleans(),
)
def test_every_pair_is_trained_once_an_epoch(pairs: int, batch: int, micro: int, replicas: int, packing: bool) -> None:
    batches = shuffled(pairs, global_batch_size=batch, epochs=2, seed=1)
    train = Train(micro_batch_size=micro, global_batch_size=batch, packing=packing, pack_tokens=60)
    table = PairTable(make_pairs(pairs), None)
    plan = MicrobatchPlan(table, batches, train, Parallel(data=replicas, pipeline=2, virtual_pipeline=2))
    steps = steps_per_epoch(pairs, batch)
    assert len(batches) == 2 * steps
    for epoch in range(2):
        rows: list[int] = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            for replica in range(replicas):
                microbatches = plan.rows_of(step, replica)
                assert len(microbatches) % 2 == 0  # whole groups of the two pipeline stages
                rows += [row for microbatch in microbatches for row in microbatch]
        assert sorted(rows) == list(range(pairs))


def test_weights_of_a_step_sum_to_one_whatever_is_filled_up() -> None:
    table = PairTable(make_pairs(7), None)
    for packing in (False, True):
        train = Train(micro_batch_size=3, global_batch_size=7, packing=packing, pack_tokens=60)
        plan = MicrobatchPlan(table, by_length([1] * 7, global_batch_size=7), train, Parallel(data=2))
        total = 0.0
        for replica in range(2):
            for rows in plan.rows_of(0, replica):
                built = plan.build(0, rows, 1, plan.row_length(0)).tensors
                total += float(built.weight_P.sum())
                assert built.tokens_BS.shape == (plan.rows_per_microbatch, plan.row_length(0))
        assert total == pytest.approx(1.0)


def test_orders_differ_between_epochs_and_seeds_and_nothing_else() -> None:
    first, again = (shuffled(50, global_batch_size=50, epochs=2, seed=3) for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    assert first[0] != shuffled(50, global_batch_size=50, epochs=1, seed=4)[0]


@given(tokens=st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_packs_keep_their_budget_and_lose_nothing(tokens: list[int]) -> None:
    found = first_fit_decreasing(range(len(tokens)), tokens, 20)
    assert sorted(row for pack in found for row in pack) == list(range(len(tokens)))
    assert all(sum(tokens[row] for row in pack) <= 20 for pack in found)
    # First fit never leaves two packs that are both half empty.
    assert sum(sum(tokens[row] for row in pack) <= 10 for pack in found) <= 1


@given(
    tokens=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    budget=st.integers(20, 60),
    multiple_of=st.integers(1, 4),
)
def test_level_packs_are_no_more_and_no_fuller(tokens: list[int], budget: int, multiple_of: int) -> None:
    rows = range(len(tokens))
    plain, found = first_fit_decreasing(rows, tokens, budget), level_packs(rows, tokens, budget, multiple_of)
    assert sorted(row for pack in found for row in pack) == list(rows)
    assert len(found) == -(-len(plain) // multiple_of) * multiple_of
    fills, before = ([sum(tokens[row] for row in pack) for pack in made] for made in (found, plain))
    assert max(fills) <= max(before) <= budget
    # First fit opens a pack only for a pair that fits nowhere: short of a pair, all are as full as the mean.
    assert max(fills) < -(-sum(tokens) // len(found)) + max(tokens)


def test_level_packs_find_the_even_split() -> None:
    """First fit alone fills the first row to the brim: 10 and 2. Half of the twelve tokens go into each."""
    tokens = [4, 3, 2, 1, 1, 1]
    assert [sum(tokens[row] for row in pack) for pack in first_fit_decreasing(range(6), tokens, 10)] == [10, 2]
    assert [sum(tokens[row] for row in pack) for pack in level_packs(range(6), tokens, 10, 2)] == [6, 6]


def test_replicas_run_equally_many_rows() -> None:
    """Dealt out first and packed then, one replica would have one row more than the other, which waits for it."""
    table = PairTable(make_pairs(32), None)
    train = Train(global_batch_size=32, packing=True, pack_tokens=60)
    plan = MicrobatchPlan(table, shuffled(32, global_batch_size=32, epochs=1, seed=0), train, Parallel(data=4))
    shares = [plan.rows_of(0, replica) for replica in range(4)]
    assert len({len(share) for share in shares}) == 1
    tokens = table.packed_tokens(1)
    slots = plan.row_length(0) * sum(len(share) for share in shares)
    assert slots < 1.1 * sum(tokens)


def test_a_pair_above_the_packing_budget_is_named() -> None:
    plan = MicrobatchPlan(
        PairTable(make_pairs(3), None),
        by_length([1] * 3, global_batch_size=3),
        Train(packing=True, pack_tokens=4),
        Parallel(),
    )
    with pytest.raises(UserError, match=r"pack_tokens=4: pair pair\d alone has"):
        plan.rows_of(0, 0)
