from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch.distributed as dist
from megatron.core import parallel_state

import nemo_sspo
from nemo_sspo.megatron.checkpoints.weights import one_rank
from nemo_sspo.megatron.runtime.groups import Groups


def test_only_groups_reads_parallel_state() -> None:
    """All else is given `Groups`, so that no code depends on when and by whom Megatron's globals were set."""
    package = Path(nemo_sspo.__file__).parent
    readers = {file for file in package.rglob("*.py") if "parallel_state" in file.read_text()}
    assert readers == {package / "megatron" / "runtime" / "groups.py"}


def test_one_rank_has_every_group_and_leaves_none() -> None:
    with one_rank():
        found = Groups.of_megatron()
        assert [dist.get_world_size(group) for group in (found.tp, found.pp, found.cp, found.dp)] == [1] * 4
    assert not dist.is_initialized()
    assert not [name for name, value in vars(parallel_state).items() if isinstance(value, dist.ProcessGroup)]
