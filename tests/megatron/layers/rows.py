"""Rows of packed pairs."""

from __future__ import annotations

import torch

from nemo_sspo.megatron.layers.attention_mask import PackedRow


def shared_row(lengths_of_parts: list[int], rest: int = 0) -> PackedRow:
    bounds = torch.tensor([0, *lengths_of_parts]).cumsum(0)
    whole = torch.tensor([0, int(bounds[-1]) + rest], dtype=torch.int32)
    return PackedRow(qkv_format="thd", cu_seqlens_q=whole, part_bounds=bounds)
