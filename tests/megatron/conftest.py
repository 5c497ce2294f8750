from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch.distributed as dist

from tests.megatron.available import available

if TYPE_CHECKING:
    import pyarrow as pa

    from nemo_sspo.megatron.batches.pairs import PairTable
    from nemo_sspo.megatron.binding import Binding


@pytest.fixture
def one_rank() -> Iterator[dist.ProcessGroup]:
    """A process group of this process alone. Gone after the test: forked ranks initialize their own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture(scope="session", params=available())
def trainer(request: pytest.FixtureRequest) -> str:
    """The setting `trainer`, one after the other, of each binding that runs here."""
    return request.param


@pytest.fixture(scope="session")
def binding(trainer: str) -> Binding:
    """What every binding must do is tested with this one."""
    from nemo_sspo.megatron.binding import binding

    return binding(trainer)


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama as Hugging Face saves it."""
    from tests.megatron.worlds import write_policy

    return write_policy(tmp_path_factory.mktemp("policy"), "llama")


@pytest.fixture(scope="session")
def imported(binding: Binding, small_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy as this project's checkpoint: `nemo/` and `hf/`."""
    import torch

    directory = tmp_path_factory.mktemp("imported")
    binding.import_policy(small_llama, directory / "nemo", directory / "hf", torch.float32)
    return directory


@pytest.fixture(scope="session")
def pairs() -> pa.Table:
    """Twenty pairs: at a global batch of 8 the last step of an epoch has 4."""
    from tests.megatron.worlds import make_pairs

    return make_pairs(20)


@pytest.fixture(scope="session")
def supervised(binding: Binding, pairs: pa.Table, imported: Path) -> PairTable:
    """The pairs with their reference log-probs, computed on one rank."""
    from nemo_sspo.config.stages import Parallel
    from nemo_sspo.megatron.batches.pairs import PairTable
    from tests.megatron.worlds import make_reference, reference

    return PairTable(pairs, make_reference(reference(binding, pairs, imported, Parallel())))
