"""Compile a tile's Triton kernels in bf16 for a GPU, present or not: `python -m tests.megatron.head.compile_tile 90`.

Prints, by kernel and cap, how many instructions of the PTX move 16 bytes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nemo_sspo.megatron.head import tile_triton

TYPES = {"logits": "*bf16", "labels": "*i64", "columns": "i32", "row_stride": "i32"}


def ptx(kernel: Any, softcap: float | None, architecture: int) -> str:
    """Of a tile whose rows are aligned and whose number of columns is any."""
    constants = {"softcap": softcap, "block": tile_triton.BLOCK}
    signature = {name: "constexpr" if name in constants else TYPES.get(name, "*fp32") for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name not in constants and name != "columns"
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": tile_triton.WARPS}).asm["ptx"]


def main(architecture: int) -> None:
    found = {}
    for name, kernel in (("statistics", tile_triton.statistics_kernel), ("gradient", tile_triton.gradient_kernel)):
        for softcap in (None, 30.0):
            text = ptx(kernel, softcap, architecture)
            found[f"{name} {softcap}"] = {
                "wide loads": text.count("ld.global.v4.b32"),
                "wide stores": text.count("st.global.v4.b32"),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
