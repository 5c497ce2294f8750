"""TensorBoard, Weights & Biases and MLflow by name; ``metrics.jsonl`` is written in any case.

W&B and MLflow take their server, project and keys from the environment, as their own tools do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from nemo_sspo.errors import UserError

_PROJECT = "nemo-sspo"


class MetricLogger(Protocol):
    """Sends the metrics of steps to a tool."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """The metrics after a step."""

    def close(self, *, failed: bool) -> None:
        """Write what is still held, and how the training ended. May be called again."""


class TensorBoard:
    """Event files below ``tensorboard/``."""

    def __init__(self, directory: Path, _run_name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(directory / "tensorboard")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project, its files below ``wandb/``."""

    def __init__(self, directory: Path, run_name: str) -> None:
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(name=run_name, project=_PROJECT, dir=directory)
        self._run.define_metric("trainer/global_step")
        self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "trainer/global_step": step})

    def close(self, *, failed: bool) -> None:
        # Otherwise done when the interpreter exits, which a forked rank never does.
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of the experiment, on the server of MLFLOW_TRACKING_URI or below ``mlflow/``."""

    def __init__(self, directory: Path, run_name: str) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"file:{directory / 'mlflow'}")
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(_PROJECT)
        number = self._client.create_experiment(_PROJECT) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=run_name).info.run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in metrics.items()])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


_LOGGERS: Mapping[str, Callable[[Path, str], MetricLogger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""By the name of the setting, which is that of the package too."""


def require_loggers(names: Sequence[str]) -> None:
    """Raise UserError when a logger is unknown or its package is not installed."""
    for name in names:
        if name not in _LOGGERS:
            raise UserError(f"train.loggers: unknown logger {name!r}; choose tensorboard, wandb or mlflow")
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"train.loggers: {name} is not installed ({error}); pip install {name}, or leave it out"
            ) from None


def open_loggers(names: Sequence[str], directory: Path, run_name: str) -> list[MetricLogger]:
    """The loggers of a training, with local files below `directory`."""
    return [_LOGGERS[name](directory, run_name) for name in names]
