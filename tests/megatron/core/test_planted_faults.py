"""Faults of a training loop that give wrong numbers silently, planted in the ranks: comparing two runs finds each."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan, PreparedMicrobatch
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import binding
from nemo_sspo.megatron.core import training
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.observers.standard import standard_observers
from nemo_sspo.megatron.observers.step_log import read_log
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError, run_forked
from tests.megatron.worlds import exported, job, make_pairs, make_reference, reference

CORE = binding("core")
REPLICAS = Parallel(data=2, distributed_optimizer=True, overlap_communication=True)
SECONDS = 60


@pytest.fixture(scope="module")
def uneven(imported_by_core: Path) -> PairTable:
    """The last step has three pairs: one replica runs two microbatches, the other runs one."""
    pairs: pa.Table = make_pairs(19)
    return PairTable(pairs, make_reference(reference(CORE, pairs, imported_by_core, Parallel())))


@pytest.fixture(scope="module")
def imported_by_core(small_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("imported")
    CORE.import_policy(small_llama, directory / "nemo", directory / "hf", torch.float32)
    return directory


Outcome = tuple[list[dict[str, Any]], dict[str, torch.Tensor]]
"""Metrics of every step, and the weights."""


def outcome(
    pairs: PairTable, imported: Path, directory: Path, fault: AbstractContextManager, parallel: Parallel = REPLICAS
) -> Outcome:
    """Of ranks in which a fault is planted."""
    training_job = job(pairs, imported, directory, parallel, train_epochs=1, micro_batch_size=1)

    def on_rank() -> None:
        with fault:
            CORE.train(training_job, standard_observers(training_job))

    run_forked(on_rank, parallel.world_size, timeout=SECONDS)
    weights = exported(CORE, training_job.output, imported, directory)
    return read_log(training_job.metrics_file), dict(SafetensorsDirectory(weights))


@pytest.fixture(scope="module")
def sound(uneven: PairTable, imported_by_core: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """On one rank, where nothing is shared out."""
    return outcome(uneven, imported_by_core, tmp_path_factory.mktemp("sound"), nullcontext(), Parallel())


def distance(found: Outcome, sound: Outcome) -> float:
    """The largest relative difference of a step's gradient norm or rate, or of a weight, in units of the update."""
    steps = [
        abs(mine[key] - other[key]) / other[key]
        for mine, other in zip(found[0], sound[0], strict=True)
        for key in ("grad_norm", "lr")
    ]
    weights = [float((found[1][name] - sound[1][name]).abs().max()) / 1e-3 for name in sound[1]]
    return max(*steps, *weights)


def no_gradient_finalization() -> AbstractContextManager:
    return mock.patch.object(training, "finalize_model_grads", _nothing)


def _nothing(*_args: Any, **_kwargs: Any) -> None: ...


def no_parameter_sync_before_saving() -> AbstractContextManager:
    return mock.patch.object(training.DistributedDataParallel, "start_param_sync", _only_with_hooks)


_start_param_sync = training.DistributedDataParallel.start_param_sync


def _only_with_hooks(self: Any, *args: Any, force_sync: bool = False, **kwargs: Any) -> None:
    if not force_sync:
        _start_param_sync(self, *args, force_sync=force_sync, **kwargs)


def another_ranks_microbatch_count() -> AbstractContextManager:
    build = MicrobatchPlan.build

    def of_the_other(
        self: MicrobatchPlan, step: int, rows: tuple[int, ...], _count: int, length: int
    ) -> PreparedMicrobatch:
        other = (dist.get_rank() + 1) % self.parallel.data
        return build(self, step, rows, len(self.rows_of(step, other)), length)

    return mock.patch.object(MicrobatchPlan, "build", of_the_other)


def rate_one_step_late() -> AbstractContextManager:
    schedule = training.rate_schedule

    def late(*args: Any) -> Callable[[int], float]:
        factor = schedule(*args)
        return lambda step: factor(max(0, step - 1))

    return mock.patch.object(training, "rate_schedule", late)


FAULTS = {
    # Sent early, gradients that are never finalized end the training by themselves.
    no_gradient_finalization: Parallel(data=2),
    no_parameter_sync_before_saving: REPLICAS,
    another_ranks_microbatch_count: REPLICAS,
    rate_one_step_late: REPLICAS,
}
"""Each in a layout in which it says nothing."""


def test_two_replicas_train_as_one_rank_does(
    sound: Outcome, uneven: PairTable, imported_by_core: Path, tmp_path: Path
) -> None:
    assert distance(outcome(uneven, imported_by_core, tmp_path, nullcontext()), sound) < 1e-2


@pytest.mark.parametrize(("fault", "parallel"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_of_the_loop_stands_out(
    sound: Outcome, uneven: PairTable, imported_by_core: Path, tmp_path: Path, fault: Callable, parallel: Parallel
) -> None:
    assert distance(outcome(uneven, imported_by_core, tmp_path, fault(), parallel), sound) > 0.1


def test_observers_on_one_rank_alone_end_the_training(
    uneven: PairTable, imported_by_core: Path, tmp_path: Path
) -> None:
    """A rank without them takes no part in what they agree on, and nothing is published."""
    training_job = job(uneven, imported_by_core, tmp_path, Parallel(data=2), train_epochs=1)

    def on_rank() -> None:
        CORE.train(training_job, standard_observers(training_job) if os.environ["RANK"] == "0" else [])

    with pytest.raises(ForkedRanksError):
        run_forked(on_rank, 2, timeout=15)
    assert not training_job.output.exists()
