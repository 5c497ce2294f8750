"""A mixture of experts, trained by `core`: every layout as one rank, states, exports, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import binding
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.models.layout import mixture_problems
from tests.megatron.policies import MIXTURES
from tests.megatron.worlds import (
    exported,
    job,
    killed_after_a_state,
    make_pairs,
    make_reference,
    reference,
    train,
    write_policy,
)

CORE = binding("core")
LAYOUTS = {
    "DP2 EP2": (Parallel(data=2, expert=2), {}),
    "TP2 SP": (Parallel(tensor=2, sequence=True), {}),
    "TP2 SP EP2, full recomputation": (Parallel(tensor=2, sequence=True, expert=2), {"recompute": "full"}),
    "PP2 DP2 EP2": (Parallel(pipeline=2, data=2, expert=2), {}),
    "CP2 EP2, packed": (Parallel(context=2, expert=2), {"packing": True, "pack_tokens": 64}),
    "DP4 EP2, overlapped": (Parallel(data=4, expert=2, overlap_communication=True), {"micro_batch_size": 1}),
    "DP2 EP2, whole optimizer": (Parallel(data=2, expert=2, distributed_optimizer=False), {}),
}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose first and last layers are dense, imported."""
    directory = tmp_path_factory.mktemp("mixture")
    model_type, changes = MIXTURES["qwen3_moe"]
    policy = write_policy(directory / "policy", model_type, **changes)
    CORE.import_policy(policy, directory / "nemo", directory / "hf", torch.float32)
    return directory


@pytest.fixture(scope="module")
def supervised(mixture: Path) -> PairTable:
    pairs = make_pairs(20)
    return PairTable(pairs, make_reference(reference(CORE, pairs, mixture, Parallel())))


@pytest.fixture(scope="module")
def alone(supervised: PairTable, mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Steps and exported weights of a training on one rank."""
    return _trained(supervised, mixture, tmp_path_factory.mktemp("alone"), Parallel(), {})


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_as_one_rank(
    supervised: PairTable, mixture: Path, alone: tuple[Any, Any], tmp_path: Path, name: str
) -> None:
    steps, weights = _trained(supervised, mixture, tmp_path, *LAYOUTS[name])
    expected_steps, expected_weights = alone
    assert len(steps) == 3
    for found, expected in zip(steps, expected_steps, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert weights.keys() == expected_weights.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(weight, expected_weights[key], rtol=1e-5, atol=1e-6, msg=key)


def test_every_expert_and_router_learns(mixture: Path, alone: tuple[Any, Any]) -> None:
    before = dict(SafetensorsDirectory(mixture / "policy"))
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in alone[1].items()}
    assert min(moved.values()) > 1e-4, min(moved, key=moved.__getitem__)
    assert sum(".experts." in name for name in moved) == 2 * 8 * 3  # two layers of eight experts


@pytest.mark.parametrize("distributed", [True, False], ids=["distributed optimizer", "whole optimizer"])
def test_resuming_continues_bit_equal(supervised: PairTable, mixture: Path, tmp_path: Path, distributed: bool) -> None:
    parallel = Parallel(data=2, expert=2, distributed_optimizer=distributed)
    whole = job(supervised, mixture, tmp_path / "whole", parallel)
    expected = train(CORE, whole)
    killed = job(supervised, mixture, tmp_path / "killed", parallel, checkpoint_every_steps=3)
    killed_after_a_state(CORE, killed)
    assert train(CORE, killed) == expected
    ours, theirs = (_weights(one, mixture) for one in (whole, killed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resuming_with_the_experts_cut_otherwise_continues_alike(
    supervised: PairTable, mixture: Path, tmp_path: Path
) -> None:
    parallel = Parallel(data=2, expert=2)
    whole = train(CORE, job(supervised, mixture, tmp_path / "whole", parallel))
    killed = job(supervised, mixture, tmp_path / "killed", parallel, checkpoint_every_steps=3)
    killed_after_a_state(CORE, killed)
    found = train(CORE, replace(killed, parallel=Parallel(data=4, expert=4)))
    assert found[:3] == whole[:3]
    assert found[3]["loss"] == pytest.approx(whole[3]["loss"], rel=1e-6)
    assert found[3]["grad_norm"] == pytest.approx(whole[3]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("parallel", "settings", "precision", "trainer", "message"),
    [
        ({}, {}, Bf16Precision(), "auto", "set trainer=core"),
        ({}, {}, Bf16Precision(), "nemo", "set trainer=core"),
        ({"data": 3, "expert": 3}, {}, Bf16Precision(), "core", "num_experts=8 does not divide over parallel.expert=3"),
        ({"tensor": 2}, {}, Bf16Precision(), "core", "needs parallel.sequence=true"),
        ({"tensor": 16, "sequence": True}, {}, Bf16Precision(), "core", "moe_intermediate_size=40 does not divide"),
        ({}, {"peft": "lora"}, Bf16Precision(), "core", "train.peft=lora is not supported"),
        ({}, {}, Fp8Precision(), "core", "precision=fp8 is not supported"),
    ],
)
def test_what_a_mixture_is_not_trained_with_is_refused(
    mixture: Path, parallel: dict[str, Any], settings: dict[str, Any], precision: Precision, trainer: Any, message: str
) -> None:
    config = read_hf_config(mixture / "hf")
    problems = list(mixture_problems(config, Parallel(**parallel), Train(**settings), precision, trainer))
    assert len(problems) == 1
    assert message in problems[0]


def test_a_dense_policy_is_not_cut_by_experts(small_llama: Path) -> None:
    config = read_hf_config(small_llama)
    problems = list(mixture_problems(config, Parallel(data=2, expert=2), Train(), Bf16Precision(), "auto"))
    assert len(problems) == 1
    assert "a policy without experts" in problems[0]


def test_nemo_refuses_to_convert_it(mixture: Path, tmp_path: Path) -> None:
    pytest.importorskip("nemo.collections.llm")
    with pytest.raises(UserError, match="set trainer=core"):
        binding("nemo").import_policy(mixture / "policy", tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_a_router_without_a_gradient_is_refused(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "mixtral", num_local_experts=4, num_experts_per_tok=1)
    with pytest.raises(UserError, match="num_experts_per_tok=1"):
        CORE.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_experts_per_tok", 9, "num_experts_per_tok is 9; expected a whole number of 1 to 8"),
        ("num_experts", 7, "no place in this family"),
        ("moe_intermediate_size", 48, "config.json says .*moe_intermediate_size=48"),
        ("mlp_only_layers", 3, "mlp_only_layers is 3"),
        ("mlp_only_layers", ["0"], "expected a list of layers"),
        ("num_experts", 2**31 - 1, "num_experts is 2147483647; expected a whole number of 1 to 25000"),
        ("decoder_sparse_step", 0, "decoder_sparse_step is 0"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    mixture: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    policy = _changed(mixture / "policy", tmp_path / "policy", key, value)
    with pytest.raises(UserError, match=message):
        CORE.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def _changed(policy: Path, copy: Path, key: str, value: Any) -> Path:
    shutil.copytree(policy, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: value}))
    return copy


def _trained(
    supervised: PairTable, mixture: Path, directory: Path, parallel: Parallel, settings: dict[str, Any]
) -> tuple[Any, Any]:
    """With an epsilon beside which gradients are small: Adam makes whole steps of rounding otherwise."""
    smooth = {"train_epochs": 1, "adam_epsilon": 1.0, "learning_rate": 0.1}
    training = job(supervised, mixture, directory / "output", parallel, **smooth | settings)
    return train(CORE, training), _weights(training, mixture)


def _weights(training: TrainingJob, mixture: Path) -> dict[str, torch.Tensor]:
    return dict(SafetensorsDirectory(exported(CORE, training.output, mixture, training.output.parent)))
