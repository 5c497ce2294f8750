"""PairRM's GPU benchmark on a processor, in the environment that has llm-blender."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("llm_blender") is None:  # found, not imported: load_blender first gives it what transformers 5 lacks
    pytest.skip("llm-blender is not installed", allow_module_level=True)

import torch

from benchmarks.gpu.pairrm import made_texts, run
from benchmarks.gpu.place import Place

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: make bench-gpu")


def test_all_scorers_find_the_same() -> None:
    found = run(Place("cpu", small=True), made_texts(1, 20))
    errors = {row[0]: row[4] for row in found.rows}
    assert errors.pop("llm-blender, fp32") == 0
    assert {name: 0 < error < 0.02 for name, error in errors.items()} == {"ours, bf16": True, "llm-blender, bf16": True}
    assert found.goals[0].is_met is None
