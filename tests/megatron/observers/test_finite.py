"""Planted numbers that are none: the training ends before it saves, and says where and with which pairs."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from torch import Tensor

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.states import states
from nemo_sspo.megatron.loss.step import TrainingLoss
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.worlds import job, reference, train

LAYOUTS = pytest.mark.parametrize("parallel", [Parallel(data=2), Parallel(pipeline=2)], ids=["DP2", "PP2"])
_finish_grad_sync = DistributedDataParallel.finish_grad_sync
_loss = TrainingLoss.__call__


def plant_after_megatrons_check(monkeypatch: pytest.MonkeyPatch, at_step: int, value: float = torch.nan) -> None:
    """The gradients of one step become `value` on the last rank, behind Megatron's check of them."""
    steps = count(1)  # of this process: each rank is forked from it

    def finish_grad_sync(self: DistributedDataParallel, *args: Any, **settings: Any) -> None:
        _finish_grad_sync(self, *args, **settings)
        if next(steps) == at_step and dist.get_rank() == dist.get_world_size() - 1:
            for buffer in self.buffers:
                buffer.grad_data.fill_(value)

    monkeypatch.setattr(DistributedDataParallel, "finish_grad_sync", finish_grad_sync)


@LAYOUTS
@pytest.mark.parametrize("at_step", [3, 6], ids=["with a state", "last step"])
def test_gradients_that_turn_bad_behind_megatrons_check_are_not_kept(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: Parallel,
    at_step: int,
) -> None:
    """In the step of a state, and in the last one: no state of it, no weights, and a retry goes on from before."""
    training = job(supervised, imported, tmp_path, parallel, checkpoint_every_steps=1)
    with monkeypatch.context() as patch:
        plant_after_megatrons_check(patch, at_step)
        with pytest.raises(
            ForkedRanksError, match=rf"train, step {at_step}, rank 1: after the step the weights are no"
        ):
            train(binding, training)
    assert states(training.scratch)[0].name == f"step_{at_step - 1}"
    assert not training.output.exists()
    assert len(training.metrics_file.read_text().splitlines()) == at_step - 1
    expected = train(binding, job(supervised, imported, tmp_path / "whole", parallel))
    assert train(binding, training) == expected


@LAYOUTS
@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_gradient_norm_that_overflows_ends_the_training_although_the_weights_stay_finite(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: Parallel,
    clip_grad: float,
) -> None:
    """Finite gradients whose squares are no fp32: Adam's second moment is infinite and its update zero, for ever."""
    plant_after_megatrons_check(monkeypatch, 3, value=1e30)
    training = job(supervised, imported, tmp_path, parallel, checkpoint_every_steps=1, clip_grad=clip_grad)
    with pytest.raises(ForkedRanksError, match=r"(?s)train, step 3, rank .: the gradient norm is inf"):
        train(binding, training)
    assert states(training.scratch)[0].name == "step_2"
    assert not training.output.exists()


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(data=2), Parallel(pipeline=2), Parallel(tensor=2)],
    ids=["one", "DP2", "PP2", "TP2"],
)
def test_a_loss_that_is_no_number_names_stage_rank_and_pair(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: Parallel,
) -> None:
    def planted(self: TrainingLoss, hidden_SBH: Tensor, weight_VH: Tensor, microbatch: PreparedMicrobatch) -> Any:
        if 7 in microbatch.rows:
            microbatch.tensors.ref_logps_P2[microbatch.rows.index(7), 0] = torch.inf
        return _loss(self, hidden_SBH, weight_VH, microbatch)

    monkeypatch.setattr(TrainingLoss, "__call__", planted)
    training = job(supervised, imported, tmp_path, parallel, checkpoint_every_steps=1, train_epochs=1)
    (step,) = [number for number, batch in enumerate(training.batches, 1) if 7 in batch.pairs]
    message = rf"(?s)train, step {step}, rank \d: .*the log-probs, targets or loss of pair pair7 are not numbers"
    with pytest.raises(ForkedRanksError, match=message):
        train(binding, training)
    assert states(training.scratch)[0].name == f"step_{step - 1}" == "step_2"


def test_weights_that_are_no_numbers_are_neither_imported_saved_loaded_nor_exported(
    binding: Binding, small_llama: Path, imported: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in small_llama.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"model\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight \(1 of \d+ values\)"
    ):
        binding.import_policy(broken, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert not (tmp_path / "nemo").exists()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nemo_sspo.megatron.models.hf_files.first_not_finite", lambda _: None)
        with pytest.raises(UserError, match=r"not saved: decoder\.layers\.1\.mlp\.linear_fc1\.weight \(1 of"):
            binding.import_policy(broken, tmp_path / "saved", tmp_path / "hf", torch.float32)
        assert not (tmp_path / "saved").exists()
        with patch.context() as unsaved:
            unsaved.setattr("nemo_sspo.megatron.checkpoints.streamed.first_not_finite", lambda _: None)
            binding.import_policy(broken, tmp_path / "saved", tmp_path / "hf", torch.float32)
    with pytest.raises(UserError, match=r"weights: decoder\.layers\.1\.mlp\.linear_fc1\.weight \(1 of"):
        binding.export_policy(tmp_path / "saved", imported / "hf", tmp_path / "exported", torch.float32)
    assert not (tmp_path / "exported").exists()


def test_reference_log_probs_that_are_no_numbers_name_their_pair(
    binding: Binding, pairs: pa.Table, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_sspo.megatron.loss import step

    logps = step.microbatch_logps
    monkeypatch.setattr(step, "microbatch_logps", lambda *args: logps(*args) * torch.tensor([1.0, torch.nan]))
    with pytest.raises(ForkedRanksError, match=r"reference_logps, rank 0: the log-probs of pair pair0 \(20 in all\)"):
        reference(binding, pairs, imported, Parallel())
