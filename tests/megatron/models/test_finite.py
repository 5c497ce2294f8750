from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch

from nemo_sspo.megatron.models.finite import all_finite, first_not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_of_many_tensors_is_found(dtype: torch.dtype, value: float) -> None:
    tensors = [torch.randn(17, 33, dtype=dtype) for _ in range(40)]
    assert int(all_finite(tensors)) == 1
    assert first_not_finite(enumerate(tensors)) is None  # type: ignore[arg-type]
    tensors[29][16, 32] = value
    assert int(all_finite(tensors)) == 0
    assert first_not_finite((str(n), tensor) for n, tensor in enumerate(tensors)) == "29 (1 of 561 values)"
