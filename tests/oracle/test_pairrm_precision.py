"""PairRM in half precision: float16, which llm-blender takes on GPUs, rounds eight times finer than bfloat16."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.oracle.pairrm_precision import BOUNDS, errors
from tests.oracle.rows import all_rows


def test_the_error_of_a_logit_is_bounded_in_each_precision(checkpoints: dict[str, Path]) -> None:
    found = errors(checkpoints["hf"], all_rows(), "cpu")
    assert all(found[precision] <= bound for precision, bound in BOUNDS.items()), found
    assert 0 < found["float16"] < found["bfloat16"] / 3
