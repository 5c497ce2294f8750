"""PairRM on a GPU against its float32 logits on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from tests.oracle.pairrm_precision import BOUNDS, errors
from tests.oracle.rows import all_rows
from tests.oracle.tiny_pairrm import make_checkpoints


def test_the_error_of_a_logit_is_bounded_in_each_precision(tmp_path: Path) -> None:
    found = errors(make_checkpoints(tmp_path)["hf"], all_rows(), "cuda")
    assert all(found[precision] <= bound for precision, bound in BOUNDS.items()), found
