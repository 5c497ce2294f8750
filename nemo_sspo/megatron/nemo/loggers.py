"""Lightning loggers by name; ``metrics.jsonl`` is written in any case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from nemo_sspo.errors import UserError


def build_loggers(names: Sequence[str], directory: Path, run_name: str) -> list[Logger]:
    """The loggers of a training step, with local files below `directory`.

    W&B and MLflow take their server, project and keys from the environment, as their own tools do. Raises UserError
    when a logger's package is not installed.
    """
    return [_build(name, directory, run_name) for name in names]


def close_loggers(loggers: Sequence[Logger], status: Literal["success", "failed"]) -> None:
    """Flush the loggers and record how the training ended; on rank 0, the only one that writes."""
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):
            # Otherwise done when the interpreter exits, which a forked rank never does.
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


def _build(name: str, directory: Path, run_name: str) -> Logger:
    try:
        match name:
            case "tensorboard":
                return TensorBoardLogger(save_dir=directory, name="tensorboard", version="")
            case "wandb":
                return WandbLogger(save_dir=directory, name=run_name, project="nemo-sspo")
            case "mlflow":
                return MLFlowLogger(save_dir=str(directory / "mlflow"), run_name=run_name, experiment_name="nemo-sspo")
    except ModuleNotFoundError as error:
        raise UserError(
            f"train.loggers: {name} is not installed ({error}); pip install {name}, or leave it out"
        ) from None
    raise UserError(f"train.loggers: unknown logger {name!r}; choose tensorboard, wandb or mlflow")
