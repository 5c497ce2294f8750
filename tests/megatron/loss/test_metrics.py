from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from nemo_sspo.megatron.loss.metrics import (
    MEANS,
    METRICS,
    PREFERENCE,
    REPULSION,
    PairMetrics,
    effective_rank,
    measure_gradient,
    share_metrics,
    sum_metrics,
)
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_equally_strong_directions(rank: int) -> None:
    states = torch.eye(8)[:rank].repeat(3, 1)
    assert effective_rank(states) == pytest.approx(rank)
    assert effective_rank(torch.cat([states, torch.zeros(4, 8)])) == pytest.approx(rank)


def test_measuring_changes_no_gradient_and_sums_over_backward_passes() -> None:
    squares = torch.zeros(2)
    for factor in (1.0, 2.0):
        h = torch.ones(3, requires_grad=True)
        term = measure_gradient(h, squares, PREFERENCE).sum() + 2 * measure_gradient(h, squares, REPULSION).sum()
        (factor * term).backward()
        assert h.grad.tolist() == [3 * factor] * 3
    assert squares.tolist() == [3 * (1 + 4), 12 * (1 + 4)]


def test_sums_over_microbatches(one_rank: dist.ProcessGroup) -> None:
    def part(value: float, squares: list[float], state: int) -> PairMetrics:
        sums = torch.full((len(MEANS) + 1,), value)
        return PairMetrics(sums, torch.tensor(squares), torch.eye(4)[state : state + 1], (), torch.tensor([True]))

    metrics = sum_metrics([part(0.25, [4.0, 1.0], 0), part(0.5, [5.0, 0.0], 1)], one_rank)
    assert tuple(metrics) == METRICS
    assert metrics["loss"] == metrics["pairs"] == 0.75
    assert metrics["gradient_ratio"] == pytest.approx(1 / 3)
    assert metrics["effective_rank"] == pytest.approx(2.0)


def test_no_preference_gradient_is_no_ratio(one_rank: dist.ProcessGroup) -> None:
    alone = PairMetrics(
        torch.zeros(len(MEANS) + 1), torch.tensor([0.0, 3.0]), torch.eye(2), (), torch.tensor([True, True])
    )
    assert sum_metrics([alone], one_rank)["gradient_ratio"] == 0.0


def test_every_stage_gets_the_metrics_of_the_last() -> None:
    metrics = {name: float(number) / 3 for number, name in enumerate(METRICS)}

    def rank() -> dict[str, float]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            return share_metrics(metrics if dist.get_rank() == 1 else None, dist.group.WORLD)

    assert run_forked(rank, 2, timeout=60) == [metrics, metrics]
