from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch
from megatron.core import dist_checkpointing
from safetensors.torch import load_file

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.adapter_files import join_parts, save_part, write_peft
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.layers.adapters import LORA, RANK, adapted_logps
from tests.megatron.worlds import exported, job, killed_after_a_state, train

WEIGHTS_OF_PEFT = "adapter_model.safetensors"


class _Watching(Observer):
    """Asserts that the adapters are all that was trained."""

    def on_start(self, training: LiveTraining) -> None:
        self._before = [(name, parameter.clone()) for name, parameter in training.named_parameters()]

    def on_end(self, training: LiveTraining, error: BaseException | None) -> None:
        layers = sum(name.endswith("mlp.linear_fc2.to_wrap.weight") for name, _ in self._before)
        assert sum(".adapter." in name for name, _ in self._before) == 4 * 2 * layers > 0
        for (name, parameter), (_, before) in zip(training.named_parameters(), self._before, strict=True):
            is_adapter = ".adapter." in name
            assert parameter.requires_grad == hasattr(parameter, "main_grad") == is_adapter, name
            assert is_adapter or parameter.grad is None, name
            assert torch.equal(parameter, before) != is_adapter, name


def train_watched(binding: Binding, lora: TrainingJob) -> list[dict[str, Any]]:
    return train(binding, lora, _Watching())


@pytest.fixture(scope="module")
def alone(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict]]:
    """What adapters learn in one process: its output and metrics."""
    output = tmp_path_factory.mktemp("lora")
    return output, train_watched(binding, job(supervised, imported, output, Parallel(), **LORA))


def test_new_adapters_leave_the_first_step_as_it_was(
    binding: Binding, supervised: PairTable, imported: Path, alone: Any, tmp_path: Path
) -> None:
    whole = train(binding, job(supervised, imported, tmp_path, Parallel(), train_epochs=1))
    for name in ("loss", "preference_loss", "repulsion", "d_chosen", "d_rejected"):
        assert alone[1][0][name] == whole[0][name], name
        assert alone[1][-1][name] != whole[0][name], name


@pytest.mark.parametrize(
    ("parallel", "settings"),
    [
        (Parallel(tensor=2, pipeline=2), {}),
        (Parallel(tensor=2, sequence=True), {"recompute": "full"}),
        (Parallel(pipeline=2, virtual_pipeline=2, distributed_optimizer=False), {"recompute": "selective"}),
    ],
    ids=["TP2 PP2", "TP2 SP, recomputed", "PP2 VPP2"],
)
def test_every_layout_trains_the_same_adapters(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    alone: Any,
    tmp_path: Path,
    parallel: Parallel,
    settings: dict[str, Any],
) -> None:
    found = train_watched(binding, job(supervised, imported, tmp_path, parallel, **LORA, **settings))
    for ours, theirs in zip(found, alone[1], strict=True):
        tolerance = 1e-6 if ours["step"] == 1 else 1e-4
        for name in ("loss", "preference_loss", "repulsion", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-6), (ours["step"], name)


def test_the_new_policy_differs_by_a_matrix_of_low_rank(
    binding: Binding, small_llama: Path, imported: Path, alone: Any, tmp_path: Path
) -> None:
    stored = dist_checkpointing.load_tensors_metadata(str(alone[0] / "nemo" / WEIGHTS))
    assert not [key for key in stored if "adapter" in key]
    before = dict(SafetensorsDirectory(small_llama))
    after = dict(SafetensorsDirectory(exported(binding, alone[0] / "nemo", imported, tmp_path)))
    assert set(after) == set(before)
    for name, weight in after.items():
        change = weight.double() - before[name].double()
        if "_proj" not in name:
            assert torch.equal(weight, before[name]), name
            continue
        singular = torch.linalg.svdvals(change)
        # What is left beyond the rank is the rounding of the sum.
        assert singular[RANK - 1] > 1e-4, name
        assert singular[RANK] < 1e-2 * singular[RANK - 1], name


@pytest.mark.parametrize(
    "parallel",
    [Parallel(tensor=2, sequence=True), Parallel(tensor=2, pipeline=2)],
    ids=["TP2 SP", "TP2 PP2"],
)
def test_merged_weights_have_the_adapted_models_log_probs(
    binding: Binding,
    small_llama: Path,
    imported: Path,
    pairs: pa.Table,
    supervised: PairTable,
    tmp_path: Path,
    parallel: Parallel,
) -> None:
    adapted_P2 = adapted_logps(binding, supervised, imported, parallel, tmp_path / "nemo")
    merged_P2 = hugging_face_logps(exported(binding, tmp_path / "nemo", imported, tmp_path), pairs)
    torch.testing.assert_close(merged_P2, adapted_P2, rtol=1e-5, atol=1e-5)
    assert (merged_P2 - hugging_face_logps(small_llama, pairs)).abs().max() > 1.0


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(tensor=2, sequence=True), Parallel(tensor=2, pipeline=2)],
    ids=["one process", "TP2 SP", "TP2 PP2"],
)
def test_the_base_and_the_exported_adapter_are_the_merged_policy(
    binding: Binding, small_llama: Path, imported: Path, supervised: PairTable, tmp_path: Path, parallel: Parallel
) -> None:
    """Applied by hand, as PEFT does: W + lora_alpha / r B A. Of two trainings the changes add up."""
    saved, before = tmp_path / "nemo", tmp_path / "before"
    adapted_logps(binding, supervised, imported, parallel, saved)
    merged = dict(SafetensorsDirectory(exported(binding, saved, imported, tmp_path)))
    shutil.copytree(saved, before)
    join_parts(before, tmp_path / "none", from_base=True)
    join_parts(saved, before, from_base=False)
    base = dict(SafetensorsDirectory(small_llama))
    for times, directory in ((1, before), (2, saved)):
        peft = tmp_path / f"peft_{times}"
        write_peft(directory, small_llama, peft, base="the/base", factor=LORA["lora_alpha"] / RANK)
        config, tensors = json.loads((peft / "adapter_config.json").read_text()), load_file(peft / WEIGHTS_OF_PEFT)
        assert (config["r"], config["lora_alpha"]) == (times * RANK, times * LORA["lora_alpha"])
        assert config["target_modules"] == [f"{name}_proj" for name in ("down", "gate", "k", "o", "q", "up", "v")]
        adapted = [name for name in base if "_proj" in name]
        assert len(tensors) == 2 * len(adapted)
        for name in adapted:
            a, b = (tensors[f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight"] for x in "AB")
            change = config["lora_alpha"] / config["r"] * (b.double() @ a.double())
            expected = base[name].double() + times * (merged[name].double() - base[name].double())
            torch.testing.assert_close(base[name].double() + change, expected, rtol=0, atol=2e-6)
            assert change.abs().max() > 0.05, name


def test_without_the_whole_way_from_the_base_no_adapter_is_exported(tmp_path: Path) -> None:
    save_part({"decoder.layers.0.mlp.linear_fc2": (torch.ones(2, 3), torch.ones(4, 2))}, tmp_path)
    join_parts(tmp_path, tmp_path / "none", from_base=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"no adapters\.safetensors.*--from iter_1\.train"):
        write_peft(tmp_path, tmp_path, tmp_path / "peft", base="b", factor=1.0)


def test_resuming_restores_the_adapters(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    whole = job(supervised, imported, tmp_path / "whole", Parallel(tensor=2), **LORA)
    expected = train(binding, whole)
    killed = job(supervised, imported, tmp_path / "killed", Parallel(tensor=2), checkpoint_every_steps=3, **LORA)
    killed_after_a_state(binding, killed)
    shutil.copytree(killed.scratch, tmp_path / "moved" / "scratch")
    assert train(binding, killed) == expected
    ours, theirs = (
        dict(SafetensorsDirectory(exported(binding, one.output, imported, tmp_path / one.output.parent.name)))
        for one in (killed, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    moved = job(supervised, imported, tmp_path / "moved", Parallel(pipeline=2), checkpoint_every_steps=3, **LORA)
    for line, other in zip(train(binding, moved), expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4), line["step"]
