"""Pairs -> the microbatches of every optimizer step, as NeMo's strategy and Megatron's schedules want them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from nemo.lightning.megatron_parallel import MegatronStep
from nemo.lightning.pytorch.plugins.data_sampler import DataSampler
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import override

from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan, PreparedMicrobatch
from nemo_sspo.megatron.nemo.strategy import groups_of


class _Microbatches(Dataset[PreparedMicrobatch]):
    """The microbatches of one replica over all steps, one after the other."""

    def __init__(self, plan: MicrobatchPlan, replica: int) -> None:
        self._plan = plan
        self._items: list[tuple[int, tuple[int, ...], int, int]] = []
        for step in range(len(plan.batches)):
            microbatches, length = plan.rows_of(step, replica), plan.row_length(step)
            self._items += [(step, rows, len(microbatches), length) for rows in microbatches]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> PreparedMicrobatch:
        return self._plan.build(*self._items[index])

    def first_of(self, step: int) -> int:
        """Index of the first microbatch of a step."""
        return next((index for index, item in enumerate(self._items) if item[0] >= step), len(self._items))


class _From(Sampler[int]):
    """Indices from `start` on. Its length is that of the whole pass, with which Lightning compares its counters."""

    def __init__(self, start: int, total: int) -> None:
        self._start = start
        self._total = total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._total))

    def __len__(self) -> int:
        return self._total


class PairSampler(DataSampler):
    """Gives the schedule, at the start of every step, the number and size of the microbatches."""

    dataloader_type = "single"  # NeMo asks: one microbatch at a time, not a global batch to be cut

    def __init__(self, plan: MicrobatchPlan) -> None:
        self._plan = plan
        self._replica = 0
        self._next_step = 0

    def begin(self, step: int, replica: int) -> None:
        """The next step is `step`, on this data-parallel replica."""
        self._next_step, self._replica = step, replica

    @override
    def setup(self, global_rank: int) -> None:
        """Nothing to prepare."""

    @override
    def transform_dataloader(self, dataloader: DataLoader, consumed_samples: int = 0) -> DataLoader:
        return dataloader

    def on_megatron_step_start(self, step: MegatronStep) -> MegatronStep:
        """Called by NeMo's strategy before a step's schedule runs."""
        number = self._next_step
        self._next_step += 1
        return dataclasses.replace(
            step,
            seq_length=self._plan.row_length(number),
            micro_batch_size=self._plan.rows_per_microbatch,
            num_microbatches=len(self._plan.rows_of(number, self._replica)),
        )


class PairDataModule(pl.LightningDataModule):
    """Feeds a plan to ``fit`` or ``test``, from the step at which the trainer stands."""

    def __init__(self, plan: MicrobatchPlan) -> None:
        super().__init__()
        self._plan = plan
        self.data_sampler = PairSampler(plan)

    @override
    def train_dataloader(self) -> DataLoader:
        return self._loader(start=self._trainer.global_step)

    @override
    def test_dataloader(self) -> DataLoader:
        return self._loader(start=0)

    @property
    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module is read by a trainer")
        return self.trainer

    def _loader(self, start: int) -> DataLoader:
        replica = dist.get_rank(groups_of(self._trainer).dp)
        microbatches = _Microbatches(self._plan, replica)
        self.data_sampler.begin(start, replica)
        return DataLoader(
            microbatches,
            sampler=_From(microbatches.first_of(start), len(microbatches)),
            batch_size=None,
            collate_fn=_unchanged,
        )


def _unchanged(item: Any) -> Any:
    return item
