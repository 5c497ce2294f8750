"""A training under NeMo's trainer as observers see it, and the one Lightning callback that calls them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig
from nemo.utils.callbacks.dist_ckpt_io import AsyncFinalizableCheckpointIO
from torch import nn
from typing_extensions import override

from nemo_sspo.megatron.binding import Observer
from nemo_sspo.megatron.checkpoints.adapter_files import save_part
from nemo_sspo.megatron.checkpoints.weights import save_weights
from nemo_sspo.megatron.jobs import StepResult
from nemo_sspo.megatron.layers.lora import merged_adapters, whole_adapters
from nemo_sspo.megatron.loss.hidden_states import unwrap
from nemo_sspo.megatron.loss.metrics import share_metrics
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.nemo.strategy import PolicyStrategy


class NemoTraining:
    """`LiveTraining` of a NeMo trainer."""

    trainer = "nemo"

    def __init__(self, trainer: pl.Trainer, step_pairs: StepPairs) -> None:
        self._trainer = trainer
        self.step_pairs = step_pairs
        self._metrics: dict[str, float] = {}
        self.started = 0.0

    @property
    def step(self) -> int:
        return self._trainer.global_step

    @property
    def result(self) -> StepResult:
        logged = self._trainer.callback_metrics
        return StepResult(self._metrics, logged["grad_norm"], logged["lr"], self.started)

    @property
    def config(self) -> TransformerConfig:
        return self._modules[0].config

    def share(self, metrics: Mapping[str, float] | None) -> None:
        """Keep a step's metrics, which the last stage of the pipeline alone has. Collective."""
        self._metrics = share_metrics(metrics, self._strategy.groups.pp)

    @property
    def _strategy(self) -> PolicyStrategy:
        return cast(PolicyStrategy, self._trainer.strategy)

    @property
    def _modules(self) -> list[GPTModel]:
        return [unwrap(chunk) for chunk in self._strategy.megatron_parallel]

    @property
    def background_writer(self) -> AsyncFinalizableCheckpointIO | None:
        io = self._strategy.checkpoint_io
        return io if isinstance(io, AsyncFinalizableCheckpointIO) else None

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for module in self._modules:
            yield from module.named_parameters()

    def save_weights(self, directory: Path) -> None:
        # Drain the state's writes first: both saves share one queue, and the state's results would index the weights.
        self.finish_saving()
        if self._strategy.ddp_config.overlap_param_gather:
            # Other data-parallel ranks' updates of the last step otherwise arrive only with the next forward pass.
            self._strategy.megatron_parallel.force_param_sync()
        with ExitStack() as stack:
            for module in self._modules:
                stack.enter_context(merged_adapters(module))
            save_weights(self._modules, directory)
        if adapters := {name: pair for module in self._modules for name, pair in whole_adapters(module).items()}:
            save_part(adapters, directory)
        dist.barrier()

    def save_state(self, directory: Path, written: Callable[[], None]) -> None:
        """Written by NeMo's strategy (``torch_dist``); its pickled parts are this run's own, never a user's file."""
        if self.background_writer is not None:
            # NeMo polls after every step whether all ranks' writers are done, and calls it then.
            self._trainer.save_checkpoint(directory, storage_options={"finalize_fn": written})
            return
        self._trainer.save_checkpoint(directory)
        dist.barrier()
        written()

    def finish_saving(self) -> None:
        """Raises CheckpointException when a rank's writer has failed."""
        if (writer := self.background_writer) is not None:
            writer.maybe_finalize_save_checkpoint(blocking=True)


class CallObservers(pl.Callback):
    """Lightning's and NeMo's hooks -> observers."""

    def __init__(self, observers: Sequence[Observer], step_pairs: StepPairs) -> None:
        self._observers = observers
        self._step_pairs = step_pairs
        self._training: NemoTraining | None = None

    def _live(self, trainer: pl.Trainer) -> NemoTraining:
        if self._training is None:
            self._training = NemoTraining(trainer, self._step_pairs)
        return self._training

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for observer in self._observers:
            observer.on_start(self._live(trainer))

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._live(trainer).started = time.monotonic()

    def on_megatron_step_end(self, reduced: Any) -> None:
        """NeMo's hook after a step's schedule: the last stage has the metrics and shares them with its pipeline."""
        assert self._training is not None
        self._training.share(reduced["metrics"] if isinstance(reduced, dict) else None)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        for observer in self._observers:
            observer.on_step(self._live(trainer))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for observer in self._observers:
            observer.on_end(self._live(trainer), None)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for observer in self._observers:
            observer.on_end(self._live(trainer), exception)
