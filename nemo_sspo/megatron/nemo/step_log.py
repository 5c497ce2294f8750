"""Record every optimizer step: metrics on disk and in Lightning's loggers, and progress."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import Logger
from megatron.core import parallel_state
from nemo.lightning.pytorch.strategies import MegatronStrategy
from torch import Tensor
from typing_extensions import override

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.megatron.loss.hidden_states import unwrap
from nemo_sspo.megatron.loss.loss import METRICS
from nemo_sspo.megatron.loss.metrics import MEANS
from nemo_sspo.megatron.models.finite import StepNumbers, all_finite, first_not_finite
from nemo_sspo.megatron.models.flops import StepWork
from nemo_sspo.megatron.nemo.loggers import close_loggers

_NAMES = {"preference": "preference_loss", "cosine": "pair_cosine"}
_GIB = 2**30


class StepLog(pl.Callback):
    """Collects each step's metrics on rank 0, whichever rank computed them.

    ``metrics.jsonl`` holds values that equal runs reproduce; seconds, rates and memory go to ``steps.jsonl``, beside
    the logs.
    """

    def __init__(
        self,
        metrics_file: Path,
        timings_file: Path,
        work_of_step: list[StepWork],
        peak_flops: float | None,
        progress: Progress,
        loggers: Sequence[Logger],
        numbers: StepNumbers,
    ) -> None:
        """`peak_flops`: FLOP/s that one rank's GPU reaches at best; None leaves the utilization out.

        `loggers` are not the trainer's: Lightning and NeMo also log values with fractional steps, which
        MLflow's store cannot read back.
        """
        self._metrics_file = metrics_file
        self._timings_file = timings_file
        self._work = work_of_step
        self._peak_flops = peak_flops
        self._progress = progress
        self._loggers = loggers
        self._numbers = numbers
        self._metrics: dict[str, float] = {}
        self._started = 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the lines of steps that a killed attempt had taken since its last checkpoint."""
        if trainer.is_global_zero:
            for path in (self._metrics_file, self._timings_file):
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = path.read_text().splitlines(keepends=True) if path.exists() else []
                path.write_text("".join(lines[: trainer.global_step]))

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._started = time.monotonic()

    def on_megatron_step_end(self, reduced: Any) -> None:
        """NeMo's hook after a step's schedule: the last stage has the metrics and shares them with its pipeline."""
        values = [reduced["metrics"][name] for name in METRICS] if isinstance(reduced, dict) else [0.0] * len(METRICS)
        shared = torch.tensor(values, dtype=torch.float64, device=torch.cuda.current_device())
        dist.broadcast(
            shared,
            parallel_state.get_pipeline_model_parallel_last_rank(),
            group=parallel_state.get_pipeline_model_parallel_group(),
        )
        self._metrics = dict(zip(METRICS, shared.tolist(), strict=True))

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        grad_norm = trainer.callback_metrics["grad_norm"].to(torch.cuda.current_device())
        memory, is_sound = _over_ranks(_peak_memory(), all_finite([*_trained(trainer), grad_norm]))
        self._stop_at_what_is_no_number(trainer, is_sound)
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        record: dict[str, float | int] = {"step": step}
        record |= {_NAMES.get(name, name): value for name, value in self._metrics.items()}
        record["grad_norm"] = float(trainer.callback_metrics["grad_norm"])
        record["lr"] = float(trainer.callback_metrics["lr"])
        record["tokens"] = self._work[step - 1].tokens
        timing = {"step": step, **self._rates(self._work[step - 1]), "peak_memory_gib": memory / _GIB}
        _append(self._metrics_file, record)
        _append(self._timings_file, timing)
        for logger in self._loggers:
            logger.log_metrics({f"train/{name}": value for name, value in (record | timing).items()}, step=step)
        self._progress.update(step, trainer.max_steps, unit="steps", note=f"loss {record['loss']:.4g}")

    def _stop_at_what_is_no_number(self, trainer: pl.Trainer, is_sound: bool) -> None:
        """Raise FloatingPointError on every rank before anything of the step is saved: its metrics, weights, gradients.

        A gradient that is not finite may leave finite weights: clipping by an infinite norm multiplies all others by
        zero, and an infinite second moment stops Adam's updates of a parameter for ever.
        """
        where = f"train, step {trainer.global_step}, rank {dist.get_rank()}"
        if wrong := [name for name in MEANS if not math.isfinite(self._metrics[name])]:
            raise FloatingPointError(f"{where}: {wrong[0]} is {self._metrics[wrong[0]]}; {self._numbers}")
        if not is_sound:
            trained = [(name, value) for name, value in _named(trainer) if value.requires_grad]
            norm = float(trainer.callback_metrics["grad_norm"])
            if found := first_not_finite((name, value.data) for name, value in trained):
                what = f"after the step the weights are no numbers: {found}"
            elif math.isfinite(norm):
                what = "after the step the weights are no numbers: those of another rank"
            else:
                found = first_not_finite((name, cast(Any, value).main_grad) for name, value in trained)
                what = f"the gradient norm is {norm}: {found or 'no gradient of this rank is infinite by itself'}"
            raise FloatingPointError(f"{where}: {what}; {self._numbers}")

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            close_loggers(self._loggers, "success")

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            close_loggers(self._loggers, "failed")

    def _rates(self, work: StepWork) -> dict[str, float]:
        seconds = time.monotonic() - self._started
        rates = {"seconds": seconds, "tokens_per_second": work.tokens / seconds}
        if self._peak_flops is not None:
            rates["mfu"] = work.flops / seconds / (self._peak_flops * dist.get_world_size())
        return rates


def _peak_memory() -> int:
    """Bytes that this rank has held at once since it started, on its GPU or, without one, as a process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _over_ranks(memory: int, is_sound: Tensor) -> tuple[int, bool]:
    """The most memory of a rank, and whether all are sound, in one transfer to the host.

    Collective; all ranks have finished the step.
    """
    worst = torch.stack([torch.tensor(-memory, device=is_sound.device), is_sound])
    dist.all_reduce(worst, op=dist.ReduceOp.MIN)
    least, sound = worst.tolist()
    return -least, bool(sound)


def _named(trainer: pl.Trainer) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for chunk in cast(MegatronStrategy, trainer.strategy).megatron_parallel:
        yield from unwrap(chunk).named_parameters()


def _trained(trainer: pl.Trainer) -> list[Tensor]:
    return [parameter.data for _, parameter in _named(trainer) if parameter.requires_grad]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a step log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
