from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch
import torch.distributed as dist
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import Interrupted
from nemo_sspo.megatron.batches.microbatch import pairs_at_reference
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.states import states
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.optimizer import settings
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.worlds import (
    SignalAfter,
    exported,
    job,
    killed_after_a_state,
    make_reference,
    reference,
    train,
)


@pytest.fixture(scope="session")
def alone(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict]]:
    """What one process learns: its output and metrics."""
    output = tmp_path_factory.mktemp("alone")
    return output, train(binding, job(supervised, imported, output, Parallel()))


@pytest.mark.parametrize(
    ("parallel", "micro_batch_size"),
    [
        (Parallel(tensor=2, pipeline=2), 4),
        (Parallel(tensor=2, sequence=True, data=2), 1),
        (Parallel(pipeline=2, virtual_pipeline=2, distributed_optimizer=False), 2),
        (Parallel(tensor=2, context=2), 2),
    ],
    ids=["TP2 PP2", "TP2 SP DP2", "PP2 VPP2", "TP2 CP2"],
)
def test_every_layout_trains_alike(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    alone: Any,
    tmp_path: Path,
    parallel: Parallel,
    micro_batch_size: int,
) -> None:
    found = train(binding, job(supervised, imported, tmp_path, parallel, micro_batch_size=micro_batch_size))
    _, expected = alone
    assert [line["pairs"] for line in found] == [8, 8, 4] * 2
    for ours, theirs in zip(found, expected, strict=True):
        # The gradient norm sees every gradient once: duplicated or forgotten ranks would change it. Adam amplifies
        # rounding from step to step, so later steps are compared more loosely than the first.
        tolerance = 1e-6 if ours["step"] == 1 else 1e-4
        for name in ("loss", "preference_loss", "repulsion", "pair_cosine", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-6), (ours["step"], name)
        assert ours["lr"] == theirs["lr"]


def test_both_heads_train_alike(
    binding: Binding, supervised: PairTable, imported: Path, alone: Any, tmp_path: Path
) -> None:
    """All other trainings here take the one-pass head."""
    found = train(binding, job(supervised, imported, tmp_path, Parallel(), head="recompute"))
    for ours, theirs in zip(found, alone[1], strict=True):
        tolerance = 1e-6 if ours["step"] == 1 else 1e-4
        for name in ("loss", "preference_loss", "grad_norm", "gradient_ratio"):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-6), (ours["step"], name)


@pytest.mark.parametrize(
    ("parallel", "shared"),
    [
        (Parallel(tensor=2, pipeline=2, sequence=True), False),
        (Parallel(data=2, context=2), False),
        (Parallel(context=2, data=2), True),
    ],
    ids=["TP2 PP2 SP", "DP2 CP2", "CP2 DP2, shared prompts"],
)
def test_packed_rows_train_alike(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    alone: Any,
    tmp_path: Path,
    parallel: Parallel,
    shared: bool,
) -> None:
    found = train(
        binding, job(supervised, imported, tmp_path, parallel, packing=True, pack_tokens=64, share_prompt=shared)
    )
    for ours, theirs in zip(found, alone[1], strict=True):
        for name in ("loss", "pair_cosine", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), (ours["step"], name)


def test_overlapped_communication_trains_alike(
    binding: Binding, supervised: PairTable, imported: Path, alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters are gathered while the forward pass runs, by hooks on its modules, the output layer among them."""
    # Megatron's buckets are larger than this model: with one bucket the first module's hook would wait for all.
    small_buckets = partial(settings.DistributedDataParallelConfig, bucket_size=4096)
    monkeypatch.setattr(settings, "DistributedDataParallelConfig", small_buckets)
    found = train(binding, job(supervised, imported, tmp_path, Parallel(data=2, overlap_communication=True)))
    for ours, theirs in zip(found, alone[1], strict=True):
        tolerance = 1e-6 if ours["step"] == 1 else 1e-4
        for name in ("loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance), (ours["step"], name)


def closed_form(training: TrainingJob) -> float:
    """The first loss where every log-ratio is 0."""
    rows = training.batches[0].pairs
    pairs = pairs_at_reference([training.pairs[row] for row in rows], [1.0] * len(rows))
    return training.objective.loss(pairs).mean().item()


def test_first_loss_is_its_closed_form(supervised: PairTable, imported: Path, alone: Any, tmp_path: Path) -> None:
    first = alone[1][0]
    training = job(supervised, imported, tmp_path, Parallel())
    expected = closed_form(training)
    assert first["preference_loss"] == pytest.approx(expected, rel=1e-6)
    assert abs(first["d_chosen"]) < 1e-5
    assert abs(first["d_rejected"]) < 1e-5
    assert first["loss"] == pytest.approx(first["preference_loss"] + first["repulsion"], rel=1e-6)


def test_another_policys_reference_breaks_the_identity(
    binding: Binding, supervised: PairTable, pairs: pa.Table, imported: Path, alone: Any, tmp_path: Path
) -> None:
    wrong_P2 = torch.tensor([[p.ref_chosen, p.ref_rejected] for p in supervised]) + 0.5
    training = job(PairTable(pairs, make_reference(wrong_P2)), imported, tmp_path, Parallel(), train_epochs=1)
    expected = closed_form(training)
    assert abs(train(binding, training)[0]["preference_loss"] / expected - 1) > 1e-3


def test_exported_policy_has_megatrons_log_probs(
    binding: Binding, pairs: pa.Table, imported: Path, alone: Any, tmp_path: Path
) -> None:
    output, _ = alone
    exported(binding, output / "nemo", imported, tmp_path)
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "nemo").symlink_to(output / "nemo")
    (trained / "hf").symlink_to(imported / "hf")
    before_P2, megatron_P2 = (
        reference(binding, pairs, imported, Parallel()),
        reference(binding, pairs, trained, Parallel(tensor=2)),
    )
    torch.testing.assert_close(hugging_face_logps(tmp_path / "hf", pairs), megatron_P2, rtol=1e-5, atol=1e-5)
    assert (megatron_P2 - before_P2).abs().max() > 0.1  # it has learnt something


@pytest.mark.parametrize("settings", [{}, {"peft": "lora"}], ids=["all weights", "LoRA"])
def test_overlapped_communication_publishes_the_same_policy(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    weights = []
    for overlap in (False, True):
        one = job(
            supervised, imported, tmp_path / str(overlap), Parallel(data=2, overlap_communication=overlap), **settings
        )
        train(binding, one)
        weights.append(weights_of(binding, one, imported))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


_gather_state = DistributedOptimizer.get_parameter_state_dp_zero


def _gather_on_the_first_replica(self: DistributedOptimizer, *args: Any, empty_data: bool = False, **how: Any) -> Any:
    """Fails on a replica that gets the whole optimizer's state to save it."""
    state = _gather_state(self, *args, empty_data=empty_data, **how)
    assert empty_data or (state is None) == (self.data_parallel_group.rank() > 0)
    return state


@pytest.mark.parametrize(
    "parallel",
    [Parallel(tensor=2), Parallel(data=2), Parallel(data=2, overlap_communication=True)],
    ids=["TP2", "DP2", "DP2, overlapped"],
)
def test_resuming_continues_bit_equal(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: Parallel,
) -> None:
    monkeypatch.setattr(DistributedOptimizer, "get_parameter_state_dp_zero", _gather_on_the_first_replica)
    whole = job(supervised, imported, tmp_path / "whole", parallel)
    expected = train(binding, whole)
    killed = job(supervised, imported, tmp_path / "killed", parallel, checkpoint_every_steps=3)
    killed_after_a_state(binding, killed)
    # The loggers and how often states are saved may change before it continues: no result depends on them.
    changed = killed.train.model_copy(update={"checkpoint_every_steps": 1, "loggers": ()})
    assert train(binding, replace(killed, train=changed)) == expected
    weights = [weights_of(binding, one, imported) for one in (whole, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_after_a_stop_signal_every_rank_saves_the_same_step_and_continues_bit_equal(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    whole = job(supervised, imported, tmp_path / "whole", Parallel(tensor=2))
    expected = train(binding, whole)
    stopped = job(supervised, imported, tmp_path / "stopped", Parallel(tensor=2))
    with pytest.raises(Interrupted, match=r"saved after step 2 of 6"):
        train(binding, stopped, SignalAfter(1, rank=1))
    assert states(stopped.scratch)[0].name == "step_2"
    assert not stopped.output.exists()
    assert train(binding, stopped) == expected
    weights = [weights_of(binding, one, imported) for one in (whole, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class _TakeOver(Observer):
    """Another attempt takes the scratch over after the first step."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def on_step(self, training: LiveTraining) -> None:
        if training.step == 1 and dist.get_rank() == 0:
            (self._scratch / "owner").write_text("another attempt")


def test_an_attempt_that_was_replaced_writes_nothing_more(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    one = job(supervised, imported, tmp_path, Parallel(tensor=2), checkpoint_every_steps=2)
    with pytest.raises(ForkedRanksError, match="another attempt at this step has begun"):
        train(binding, one, _TakeOver(one.scratch))
    assert len(one.metrics_file.read_text().splitlines()) == 1
    assert not states(one.scratch)


def test_resuming_in_another_layout_continues_alike(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    whole = train(binding, job(supervised, imported, tmp_path / "whole", Parallel(tensor=2)))
    killed = job(supervised, imported, tmp_path / "killed", Parallel(tensor=2), checkpoint_every_steps=3)
    killed_after_a_state(binding, killed)
    found = train(binding, replace(killed, parallel=Parallel(pipeline=2)))
    # The first step after the state sees the very same weights; the next one sees another layout's rounding of a step,
    # which Adam amplifies.
    assert found[:3] == whole[:3]
    assert found[3]["loss"] == pytest.approx(whole[3]["loss"], rel=1e-6)
    assert found[3]["grad_norm"] == pytest.approx(whole[3]["grad_norm"], rel=1e-5)
    for ours, theirs in zip(found[4:], whole[4:], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4), ours["step"]


def weights_of(binding: Binding, training: TrainingJob, imported: Path) -> dict[str, torch.Tensor]:
    return dict(SafetensorsDirectory(exported(binding, training.output, imported, training.output.parent)))
