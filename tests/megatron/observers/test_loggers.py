"""Weights & Biases and MLflow, their own packages, offline. `make test-loggers` installs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")
pytest.importorskip("wandb", reason="run by `make test-loggers`")
pytest.importorskip("mlflow", reason="run by `make test-loggers`")

import mlflow
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.observers.step_log import read_log
from tests.megatron.worlds import job, train

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "MLFLOW_TRACKING_PASSWORD": "correct-horse-battery",
    "MLFLOW_TRACKING_TOKEN": "staple-token-8472",
}


@pytest.fixture(scope="module")
def output(binding: Binding, supervised: PairTable, imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training's output; its last stage, which alone knows the metrics, is not rank 0, which alone writes them."""
    directory = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name, secret in SECRETS.items():
            patch.setenv(name, secret)
        loggers = ("wandb", "mlflow")
        train(binding, job(supervised, imported, directory, Parallel(pipeline=2), train_epochs=1, loggers=loggers))
    return directory


@pytest.fixture(scope="module")
def expected(output: Path) -> list[dict[str, float]]:
    """Every metric and timing of each step, under its name in the loggers."""
    metrics, timings = (read_log(output / "scratch" / name) for name in ("metrics.jsonl", "steps.jsonl"))
    return [
        {f"train/{name}": value for name, value in (metric | timing).items()}
        for metric, timing in zip(metrics, timings, strict=True)
    ]


def test_mlflow_has_every_metric_of_every_step(output: Path, expected: list[dict[str, float]]) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"file:{output / 'logs' / 'mlflow'}")
    experiment = client.get_experiment_by_name("nemo-sspo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "test"
    for name in expected[0]:
        logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert logged == pytest.approx({line["train/step"]: line[name] for line in expected}), name


def test_wandb_has_every_metric_of_every_step(output: Path, expected: list[dict[str, float]]) -> None:
    (file,) = (output / "logs" / "wandb").glob("offline-run-*/run-*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    logged = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            logged.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert len(logged) == len(expected) == 3
    for line, step in zip(logged, expected, strict=True):
        assert {name: line[name] for name in step} == pytest.approx(step)


def test_no_secret_is_written(output: Path) -> None:
    files = [path for path in output.rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in files)
    for path in files:
        content = path.read_bytes()
        for name, secret in SECRETS.items():
            assert secret.encode() not in content, f"{name} in {path}"
