from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.loss.logp_table import LogpTable
from nemo_sspo.megatron.loss.step import RowLogps
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError, run_forked
from nemo_sspo.megatron.runtime.groups import Groups

IDS = ["a", "b", "c"]
LOGPS_P2 = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])


def part(*rows: int) -> RowLogps:
    return rows, LOGPS_P2[list(rows)]


def gathered(computed: Sequence[Sequence[RowLogps]], over: str) -> list[Tensor]:
    """The table on each rank, from what each has computed; `over`: along which dimension the ranks lie."""

    def rank() -> Tensor:
        with cpu_runtime():
            dist.init_process_group("gloo")
            alone = [dist.new_group([member]) for member in range(len(computed))][dist.get_rank()]
            groups = {name: dist.group.WORLD if name == over else alone for name in ("tp", "pp", "cp", "dp")}
            table = LogpTable(IDS)
            table.add(computed[dist.get_rank()], Groups(**groups))
            return table.gather()

    return run_forked(rank, len(computed), timeout=60)


def test_replicas_put_their_pairs_together() -> None:
    for table_P2 in gathered([[part(2), part()], [part(1, 0)]], over="dp"):
        assert torch.equal(table_P2, LOGPS_P2)


@pytest.mark.parametrize("dimension", ["tp", "cp"])
def test_of_ranks_with_equal_pairs_one_counts(dimension: str) -> None:
    for table_P2 in gathered([[part(0, 1, 2)]] * 2, over=dimension):
        assert torch.equal(table_P2, LOGPS_P2)


@pytest.mark.parametrize("computed", [[[part(0, 1)], [part(1, 2)]], [[part(0)], [part(2)]]], ids=["twice", "never"])
def test_a_pair_that_was_not_computed_once_ends_it(computed: Sequence[Sequence[RowLogps]]) -> None:
    with pytest.raises(ForkedRanksError, match="1 pairs were not computed exactly once"):
        gathered(computed, over="dp")
