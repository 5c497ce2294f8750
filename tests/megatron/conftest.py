from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch.distributed as dist

if TYPE_CHECKING:
    import pyarrow as pa

    from nemo_sspo.megatron.batches.pairs import PairTable


@pytest.fixture
def one_rank() -> Iterator[dist.ProcessGroup]:
    """A process group of this process alone. Gone after the test: forked ranks initialize their own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama as Hugging Face saves it."""
    from tests.megatron.worlds import write_policy

    return write_policy(tmp_path_factory.mktemp("policy"), "llama")


@pytest.fixture(scope="session")
def imported(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy as this project's checkpoint: `nemo/` and `hf/`."""
    import torch

    from nemo_sspo.megatron.nemo.convert import import_policy

    directory = tmp_path_factory.mktemp("imported")
    import_policy(policy, directory / "nemo", directory / "hf", torch.float32)
    return directory


@pytest.fixture(scope="session")
def pairs() -> pa.Table:
    """Twenty pairs: at a global batch of 8 the last step of an epoch has 4."""
    from tests.megatron.worlds import make_pairs

    return make_pairs(20)


@pytest.fixture(scope="session")
def supervised(pairs: pa.Table, imported: Path) -> PairTable:
    """The pairs with their reference log-probs, computed on one rank."""
    from nemo_sspo.config.stages import Parallel
    from nemo_sspo.megatron.batches.pairs import PairTable
    from tests.megatron.worlds import make_reference, reference

    return PairTable(pairs, make_reference(reference(pairs, imported, Parallel())))
