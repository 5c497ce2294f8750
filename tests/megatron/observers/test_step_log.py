"""What a training tells about its steps, and where."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from nemo_sspo.megatron.models.flops import ModelFlops
from nemo_sspo.megatron.observers.step_log import read_log
from tests.megatron.worlds import VOCAB, job, train


@pytest.fixture(scope="module")
def output(binding: Binding, supervised: PairTable, imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training's output; its last stage, which alone knows the metrics, is not rank 0, which alone writes them."""
    directory = tmp_path_factory.mktemp("logged")
    train(binding, job(supervised, imported, directory, Parallel(pipeline=2), train_epochs=1, loggers=("tensorboard",)))
    return directory


def test_tensorboard_has_every_metric_and_timing(output: Path) -> None:
    events = EventAccumulator(str(output / "logs" / "tensorboard"))
    events.Reload()
    metrics, timings = (read_log(output / "scratch" / name) for name in ("metrics.jsonl", "steps.jsonl"))
    assert [line["step"] for line in metrics] == [1, 2, 3]
    for name in (metrics[0] | timings[0]).keys() - {"step"}:
        logged = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        for measured, timed in zip(metrics, timings, strict=True):
            assert logged[measured["step"]] == pytest.approx((measured | timed)[name], rel=1e-6), name


def test_which_term_leads_and_how_collapsed_the_states_are_is_written_down(output: Path) -> None:
    for line in read_log(output / "scratch" / "metrics.jsonl"):
        assert line["gradient_ratio"] > 0
        assert 1 < line["effective_rank"] <= 2 * line["pairs"]


def test_what_differs_between_equal_runs_is_no_metric(output: Path) -> None:
    metrics, timings = (read_log(output / "scratch" / name) for name in ("metrics.jsonl", "steps.jsonl"))
    assert timings[0].keys() & metrics[0].keys() == {"step"}
    assert {"seconds", "tokens_per_second", "peak_memory_gib"} < timings[0].keys()
    # A rank holds NeMo and torch, and no machine that runs this test has a TiB.
    assert all(0.1 < line["peak_memory_gib"] < 1024 for line in timings)
    if not torch.cuda.is_available():
        assert "mfu" not in timings[0]


class _KeepFlops(Observer):
    """What a token costs by the shape of the model that was built."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_start(self, training: LiveTraining) -> None:
        if dist.get_rank() == 0:
            self._file.write_bytes(pickle.dumps(ModelFlops.of(training.config, VOCAB)))


def test_the_share_of_the_peak_is_work_per_second_and_gpu(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_sspo.megatron.observers.standard.peak_flops_here", lambda: 1e9)
    packing = {"packing": True, "pack_tokens": 64, "share_prompt": True}
    training = job(supervised, imported, tmp_path, Parallel(data=2), train_epochs=1, **packing)
    train(binding, training, _KeepFlops(tmp_path / "flops"))
    flops = pickle.loads((tmp_path / "flops").read_bytes())
    lengths = supervised.lengths()
    for line, measured, batch in zip(
        read_log(training.timings_file), read_log(training.metrics_file), training.batches, strict=True
    ):
        work = flops.of_step((lengths[row] for row in batch.pairs), shares_prompts=True)
        assert measured["tokens"] == work.tokens
        assert line["mfu"] == pytest.approx(work.flops / line["seconds"] / 2e9)
