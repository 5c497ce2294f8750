"""Planted numbers that are none: the training ends before it saves, and says where and with which pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo.collections.llm")

import pyarrow as pa
import torch
from nemo.lightning.pytorch.strategies import MegatronStrategy

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.checkpoints.states import states
from nemo_sspo.megatron.checkpoints.weights import load_weights, one_rank, save_weights
from nemo_sspo.megatron.models.finite import all_finite, first_not_finite
from nemo_sspo.megatron.nemo.convert import export_policy, import_policy
from nemo_sspo.megatron.nemo.loss_reduction import PreferenceLossReduction
from nemo_sspo.megatron.nemo.model_config import host_config
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.worlds import job, make_reference, reference, train

LAYOUTS = pytest.mark.parametrize("parallel", [Parallel(data=2), Parallel(pipeline=2)], ids=["DP2", "PP2"])
_optimizer_step = MegatronStrategy.optimizer_step
_forward = PreferenceLossReduction.forward


def plant_after_megatrons_check(monkeypatch: pytest.MonkeyPatch, at_step: int, value: float = torch.nan) -> None:
    """The gradients of one step become `value` on the last rank, behind Megatron's check of them."""

    def optimizer_step(self: MegatronStrategy, optimizer: Any, closure: Any, *args: Any, **kwargs: Any) -> Any:
        def closed() -> Any:
            result = closure()
            if self.trainer.global_step + 1 == at_step and self.trainer.global_rank == self.trainer.world_size - 1:
                for chunk in self.megatron_parallel:
                    for buffer in chunk.buffers:
                        buffer.grad_data.fill_(value)
            return result

        return _optimizer_step(self, optimizer, closed, *args, **kwargs)

    monkeypatch.setattr(MegatronStrategy, "optimizer_step", optimizer_step)


@LAYOUTS
@pytest.mark.parametrize("at_step", [3, 6], ids=["with a state", "last step"])
def test_gradients_that_turn_bad_behind_megatrons_check_are_not_kept(
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
            train(training)
    assert states(training.scratch)[0].name == f"step_{at_step - 1}"
    assert not training.output.exists()
    assert len(training.metrics_file.read_text().splitlines()) == at_step - 1
    expected = train(job(supervised, imported, tmp_path / "whole", parallel))
    assert train(training) == expected


@LAYOUTS
@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_gradient_norm_that_overflows_ends_the_training_although_the_weights_stay_finite(
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
        train(training)
    assert states(training.scratch)[0].name == "step_2"
    assert not training.output.exists()


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(data=2), Parallel(pipeline=2), Parallel(tensor=2)],
    ids=["one", "DP2", "PP2", "TP2"],
)
def test_a_loss_that_is_no_number_names_stage_rank_and_pair(
    supervised: PairTable, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: Parallel
) -> None:
    def forward(self: PreferenceLossReduction, batch: Any, forward_out: torch.Tensor) -> Any:
        if 7 in batch.rows:
            batch.tensors.ref_logps_P2[batch.rows.index(7), 0] = torch.inf
        return _forward(self, batch, forward_out)

    monkeypatch.setattr(PreferenceLossReduction, "forward", forward)
    training = job(supervised, imported, tmp_path, parallel, checkpoint_every_steps=1, train_epochs=1)
    (step,) = [number for number, batch in enumerate(training.batches, 1) if 7 in batch.pairs]
    message = rf"(?s)train, step {step}, rank \d: .*the log-probs, targets or loss of pair pair7 are not numbers"
    with pytest.raises(ForkedRanksError, match=message):
        train(training)
    assert states(training.scratch)[0].name == f"step_{step - 1}" == "step_2"


def test_weights_that_are_no_numbers_are_neither_imported_saved_loaded_nor_exported(
    policy: Path, imported: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for path in policy.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"model\.safetensors: model\.layers\.1\.mlp\.up_proj\.weight \(1 of \d+ values\)"
    ):
        import_policy(broken, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert not (tmp_path / "nemo").exists()

    def bad_model() -> Any:
        model = host_config(imported / "hf", torch.float32).configure_model(tokenizer=None)
        load_weights([model], imported / "nemo")
        with torch.no_grad():
            model.decoder.layers[2].mlp.linear_fc2.weight[0, 0] = torch.inf
        return model

    with one_rank(), pytest.raises(UserError, match=r"not saved: decoder\.layers\.2\.mlp\.linear_fc2\.weight \(1 of"):
        save_weights([bad_model()], tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nemo_sspo.megatron.checkpoints.weights.refuse_not_finite", lambda *_: None)
        with one_rank():
            save_weights([bad_model()], tmp_path / "saved")
    with pytest.raises(UserError, match=r"weights: decoder\.layers\.2\.mlp\.linear_fc2\.weight \(1 of"):
        export_policy(tmp_path / "saved", imported / "hf", tmp_path / "exported", torch.float32)
    assert not (tmp_path / "exported").exists()


def test_a_stored_reference_or_target_that_is_no_number_is_refused_by_its_pair(
    supervised: PairTable, pairs: pa.Table
) -> None:
    logps_P2 = torch.tensor([[pair.ref_chosen, pair.ref_rejected] for pair in supervised])
    logps_P2[13, 1] = -torch.inf
    with pytest.raises(UserError, match="pair pair13: rejected_logp is not finite"):
        PairTable(pairs, make_reference(logps_P2))
    column = pairs.schema.get_field_index("target_pair")
    targets = pairs["target_pair"].to_pylist()
    targets[4] = float("nan")
    broken = pairs.set_column(column, pairs.schema.field(column), pa.array(targets, pairs.schema.field(column).type))
    with pytest.raises(UserError, match="pair pair4: target_pair is not finite"):
        PairTable(broken, None)


def test_reference_log_probs_that_are_no_numbers_name_their_pair(
    pairs: pa.Table, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_sspo.megatron.loss import step

    logps = step.microbatch_logps
    monkeypatch.setattr(step, "microbatch_logps", lambda *args: logps(*args) * torch.tensor([1.0, torch.nan]))
    with pytest.raises(ForkedRanksError, match=r"reference_logps, rank 0: the log-probs of pair pair0 \(20 in all\)"):
        reference(pairs, imported, Parallel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_of_many_tensors_is_found(dtype: torch.dtype, value: float) -> None:
    tensors = [torch.randn(17, 33, dtype=dtype) for _ in range(40)]
    assert int(all_finite(tensors)) == 1
    assert first_not_finite(enumerate(tensors)) is None  # type: ignore[arg-type]
    tensors[29][16, 32] = value
    assert int(all_finite(tensors)) == 0
    assert first_not_finite((str(n), tensor) for n, tensor in enumerate(tensors)) == "29 (1 of 561 values)"
