"""Training through NeMo's trainer on one GPU: the layers, optimizer, precision and checkpoints that a run has there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from benchmarks.gpu.place import Place
from benchmarks.gpu.train_step import BASE, FP8, Steps, measured
from benchmarks.gpu.world import World, write_policy
from nemo_sspo.megatron.layers.spec import transformer_engine_usable

HERE = Place("cuda", small=True)
# Relative, of a tiny model's loss and gradient norm; `test_fp8.py` bounds the gradients themselves.
BF16, EIGHT_BITS = 1e-2, 1e-1


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(HERE, None)


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starting policy, written on the host."""
    made = tmp_path_factory.mktemp("world")
    write_policy(world, made)
    return made


@pytest.fixture(scope="module")
def base(world: World, folder: Path) -> Steps:
    found = measured(BASE, world, folder, HERE)
    assert found.refusal is None
    return found


@pytest.mark.parametrize("name", ["padded", "recompute head", "prompts shared", *FP8])
def test_every_way_of_training_takes_the_same_steps(name: str, base: Steps, world: World, folder: Path) -> None:
    is_fp8 = name in FP8
    if is_fp8 and not (transformer_engine_usable() and torch.cuda.get_device_capability() >= (9, 0)):
        pytest.skip("FP8 needs Transformer Engine and a Hopper-class GPU")
    found = measured(name, world, folder, HERE)
    assert found.refusal is None
    bound = EIGHT_BITS if is_fp8 else BF16
    assert found.metrics[-1]["loss"] == pytest.approx(base.metrics[-1]["loss"], rel=bound)
    assert found.metrics[-1]["grad_norm"] == pytest.approx(base.metrics[-1]["grad_norm"], rel=5 * bound)
