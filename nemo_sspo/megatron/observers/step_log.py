"""Record every optimizer step: metrics on disk and in the loggers, and progress."""

from __future__ import annotations

import json
import math
import resource
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from typing_extensions import override

from nemo_sspo.megatron.binding import LiveTraining, Observer
from nemo_sspo.megatron.jobs import StepResult, TrainingJob
from nemo_sspo.megatron.loss.metric_names import MEANS
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.finite import all_finite, first_not_finite
from nemo_sspo.megatron.models.flops import ModelFlops, StepWork
from nemo_sspo.megatron.observers.loggers import MetricLogger, open_loggers, require_loggers

_NAMES = {"preference": "preference_loss", "cosine": "pair_cosine"}
_GIB = 2**30


class StepLog(Observer):
    """Writes each step's metrics on rank 0, and ends the training on all ranks at a step that is not finite.

    ``metrics.jsonl`` holds values that equal runs reproduce; seconds, rates and memory go to ``steps.jsonl`` beside it.
    """

    def __init__(self, job: TrainingJob, peak_flops: float | None) -> None:
        """`peak_flops`: FLOP/s that one rank's GPU reaches at best; None leaves the utilization out."""
        self._job = job
        self._peak_flops = peak_flops
        require_loggers(job.train.loggers)
        self._loggers: list[MetricLogger] = []  # rank 0 alone has any
        self._work: list[StepWork] = []

    @override
    def on_start(self, training: LiveTraining) -> None:
        """Drops the lines of steps that a killed attempt had taken since its last state."""
        self._work = _work_of_steps(self._job, training.config)
        if dist.get_rank() == 0:
            for path in (self._job.metrics_file, self._job.timings_file):
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = path.read_text().splitlines(keepends=True) if path.exists() else []
                path.write_text("".join(lines[: training.step]))
            self._loggers = open_loggers(self._job.train.loggers, self._job.logs, self._job.run_name)

    @override
    def on_step(self, training: LiveTraining) -> None:
        result, step = training.result, training.step
        trained = [value.data for _, value in training.named_parameters() if value.requires_grad]
        grad_norm = result.grad_norm.to(torch.cuda.current_device())
        memory, is_sound = _over_ranks(_peak_memory(), all_finite([*trained, grad_norm]))
        _stop_at_what_is_not_finite(training, result, is_sound)
        if dist.get_rank() != 0:
            return
        work = self._work[step - 1]
        record: dict[str, float | int] = {"step": step}
        record |= {_NAMES.get(name, name): value for name, value in result.metrics.items()}
        record["grad_norm"] = float(result.grad_norm)
        record["lr"] = float(result.learning_rate)
        record["tokens"] = work.tokens
        timing = {"step": step, **self._rates(work, result.started), "peak_memory_gib": memory / _GIB}
        _append(self._job.metrics_file, record)
        _append(self._job.timings_file, timing)
        for logger in self._loggers:
            logger.log({f"train/{name}": value for name, value in (record | timing).items()}, step)
        self._job.progress.update(step, len(self._work), unit="steps", note=f"loss {record['loss']:.4g}")

    @override
    def on_end(self, training: LiveTraining, error: BaseException | None) -> None:
        for logger in self._loggers:
            logger.close(failed=error is not None)

    def _rates(self, work: StepWork, started: float) -> dict[str, float]:
        seconds = time.monotonic() - started
        rates = {"seconds": seconds, "tokens_per_second": work.tokens / seconds}
        if self._peak_flops is not None:
            rates["mfu"] = work.flops / seconds / (self._peak_flops * dist.get_world_size())
        return rates


def _work_of_steps(job: TrainingJob, config: TransformerConfig) -> list[StepWork]:
    vocab_size = read_hf_config(job.hf_dir).require("vocab_size")
    flops = ModelFlops.of(config, vocab_size, frozen=job.train.peft is not None)
    lengths = job.pairs.lengths()
    return [
        flops.of_step((lengths[row] for row in batch.pairs), shares_prompts=job.train.share_prompt)
        for batch in job.batches
    ]


def _stop_at_what_is_not_finite(training: LiveTraining, result: StepResult, is_sound: bool) -> None:
    """Raise FloatingPointError on every rank before anything of the step is saved: its metrics, weights, gradients.

    A gradient that is not finite may leave finite weights: clipping by an infinite norm multiplies all others by
    zero, and an infinite second moment stops Adam's updates of a parameter for ever.
    """
    where = f"train, step {training.step}, rank {dist.get_rank()}"
    if wrong := [name for name in MEANS if not math.isfinite(result.metrics[name])]:
        raise FloatingPointError(f"{where}: {wrong[0]} is {result.metrics[wrong[0]]}; {training.step_pairs}")
    if not is_sound:
        trained = [(name, value) for name, value in training.named_parameters() if value.requires_grad]
        norm = float(result.grad_norm)
        if found := first_not_finite((name, value.data) for name, value in trained):
            what = f"after the step the weights are no numbers: {found}"
        elif math.isfinite(norm):
            what = "after the step the weights are no numbers: those of another rank"
        else:
            found = first_not_finite((name, cast(Any, value).main_grad) for name, value in trained)
            what = f"the gradient norm is {norm}: {found or 'no gradient of this rank is infinite by itself'}"
        raise FloatingPointError(f"{where}: {what}; {training.step_pairs}")


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


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a step log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
