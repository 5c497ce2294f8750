"""What a shared prompt saves, in exact counts, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("megatron.core")

import torch

from benchmarks.packing import drawn
from benchmarks.prompt_sharing import (
    ALONE,
    LAYOUTS,
    SHARED,
    Step,
    largest_difference,
    long_prompts,
    of_a_large_model,
    small,
    visited_keys,
)
from nemo_sspo.megatron.checkpoints.weights import one_rank

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="one rank over gloo: for machines without CUDA")

PAIRS = small(drawn(4))


@pytest.fixture(scope="module")
def steps() -> Iterator[dict[str, Step]]:
    with one_rank():
        yield {name: Step.of(PAIRS, make) for name, make in LAYOUTS.items()}


def test_products_are_those_of_the_formula_and_of_fewer_slots(steps: dict[str, Step]) -> None:
    assert all(step.products == step.expected for step in steps.values())
    assert steps[ALONE].slots - steps[SHARED].slots == sum(prompt - 1 for prompt, _, _ in PAIRS)
    assert steps[SHARED].products < steps[ALONE].products


def test_gradients_are_the_same(steps: dict[str, Step]) -> None:
    assert 0 < largest_difference(steps[SHARED], steps[ALONE]) < 1e-5


def test_what_an_8b_model_saves() -> None:
    for lengths, bound in ((drawn(512), 0.87), (long_prompts(), 0.71)):
        assert of_a_large_model(lengths, shared=True) < bound * of_a_large_model(lengths, shared=False)


def test_attention_visits_fewer_blocks() -> None:
    pairs = long_prompts().of_pair[:4]
    assert visited_keys(pairs, LAYOUTS[SHARED]) < visited_keys(pairs, LAYOUTS[ALONE])
