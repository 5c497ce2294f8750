"""Pairs -> the microbatches of every optimizer step, as NeMo's strategy and Megatron's schedules want them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
from megatron.core import parallel_state
from nemo.lightning.megatron_parallel import MegatronStep
from nemo.lightning.pytorch.plugins.data_sampler import DataSampler
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import override

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.batch_plan import GlobalBatch
from nemo_sspo.megatron.microbatch import Microbatch, RowShape, padded_microbatch
from nemo_sspo.megatron.pairs import PairTable


@dataclass(frozen=True)
class PreparedMicrobatch:
    """A microbatch and the rows of the pairs table in it; the filler pairs that complete it stand after those."""

    tensors: Microbatch
    rows: tuple[int, ...]
    step: int
    """Optimizer step, counted from 0."""
    of_step: int
    """Microbatches that this replica runs in that step."""


@dataclass(frozen=True)
class MicrobatchPlan:
    """Everything that decides the shapes and the content of the microbatches of a pass."""

    pairs: PairTable
    batches: Sequence[GlobalBatch]
    train: Train
    parallel: Parallel

    def __post_init__(self) -> None:
        tokens = self.pairs.row_tokens()
        object.__setattr__(self, "_tokens", tokens)
        object.__setattr__(self, "_filler", min(range(len(tokens)), key=tokens.__getitem__))

    @property
    def _multiple_of(self) -> int:
        # The interleaved schedule runs whole groups of `pipeline` microbatches.
        return self.parallel.pipeline if self.parallel.virtual_pipeline else 1

    def rows_of(self, step: int, replica: int) -> list[tuple[int, ...]]:
        """Table rows of each microbatch that `replica` runs at `step`."""
        return self.batches[step].microbatches(
            replica,
            self.parallel.data,
            micro_batch_size=self.train.micro_batch_size,
            multiple_of=self._multiple_of,
        )

    def row_shape(self, step: int) -> RowShape:
        """One row length for the whole step: pipeline stages exchange tensors of a shape agreed on beforehand."""
        layout = {
            "tensor": self.parallel.tensor,
            "context": self.parallel.context,
            "sequence_parallel": self.parallel.sequence,
        }
        longest = max(self._tokens[row] for row in self.batches[step].pairs)
        length = RowShape.for_layout(**layout).row_length(longest)
        return RowShape.for_layout(**layout, length=length)

    def build(self, step: int, rows: tuple[int, ...], of_step: int) -> PreparedMicrobatch:
        """The tensors of one microbatch, completed to the full size by pairs of weight zero."""
        fillers = self.train.micro_batch_size - len(rows)
        pairs = [self.pairs[row] for row in (*rows, *[self._filler] * fillers)]
        weights = [1.0 / len(self.batches[step].pairs)] * len(rows) + [0.0] * fillers
        return PreparedMicrobatch(padded_microbatch(pairs, weights, self.row_shape(step)), rows, step, of_step)


class _Microbatches(Dataset[PreparedMicrobatch]):
    """The microbatches of one replica over all steps, one after the other."""

    def __init__(self, plan: MicrobatchPlan, replica: int) -> None:
        self._plan = plan
        self._items: list[tuple[int, tuple[int, ...], int]] = []
        for step in range(len(plan.batches)):
            of_step = plan.rows_of(step, replica)
            self._items += [(step, rows, len(of_step)) for rows in of_step]

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
    """Tells the schedule, at the start of every step, how many microbatches come and how large they are."""

    dataloader_type = "single"  # NeMo asks: one microbatch at a time, not a global batch to be cut

    def __init__(self, plan: MicrobatchPlan) -> None:
        self._plan = plan
        self.next_step = 0

    @override
    def setup(self, global_rank: int) -> None:
        """Nothing to prepare."""

    @override
    def transform_dataloader(self, dataloader: DataLoader, consumed_samples: int = 0) -> DataLoader:
        return dataloader

    def on_megatron_step_start(self, step: MegatronStep) -> MegatronStep:
        """Called by NeMo's strategy before a step's schedule runs."""
        number = self.next_step
        self.next_step += 1
        return dataclasses.replace(
            step,
            seq_length=self._plan.row_shape(number).length,
            # A pair is two rows of a padded microbatch.
            micro_batch_size=2 * self._plan.train.micro_batch_size,
            num_microbatches=len(self._plan.rows_of(number, parallel_state.get_data_parallel_rank())),
        )


class PairDataModule(pl.LightningDataModule):
    """Feeds a plan to ``fit`` or ``test``, from the step at which the trainer stands."""

    def __init__(self, plan: MicrobatchPlan) -> None:
        super().__init__()
        self._plan = plan
        self.data_sampler = PairSampler(plan)

    @override
    def train_dataloader(self) -> DataLoader:
        return self._loader(start=self.trainer.global_step)

    @override
    def test_dataloader(self) -> DataLoader:
        return self._loader(start=0)

    def _loader(self, start: int) -> DataLoader:
        microbatches = _Microbatches(self._plan, parallel_state.get_data_parallel_rank())
        self.data_sampler.next_step = start
        return DataLoader(
            microbatches,
            sampler=_From(microbatches.first_of(start), len(microbatches)),
            batch_size=None,
            collate_fn=_unchanged,
        )


def _unchanged(item: PreparedMicrobatch) -> PreparedMicrobatch:
    return item
