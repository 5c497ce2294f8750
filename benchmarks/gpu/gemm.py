"""How fast this GPU multiplies bf16 matrices at the head's shapes: what the head's speed is a share of.

Legend: T tokens, H hidden, V vocabulary. The head's three products, 2TVH FLOPs each, and nothing else:
logits [T, V] = h w^T, dh [T, H] = d w, dw [V, H] = d^T h.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch

from benchmarks import measure
from benchmarks.gpu.place import Place, parser, place_of
from benchmarks.table import Benchmark, Cell
from nemo_sspo.megatron.models.flops import peak_flops_here

Shape = tuple[int, int, int]
"""(T, H, V)"""

SWEEP: tuple[Shape, ...] = tuple(product((2048, 8192, 16_384), (4096, 8192), (128_256, 16_032)))
"""The widths of 8B and 70B models; Llama 3's vocabulary, whole and cut over eight tensor-parallel ranks."""
SMALL: tuple[Shape, ...] = ((64, 32, 256), (128, 32, 256))
_SQUARE = 8192
_REPEATS = 10


def shapes(place: Place) -> tuple[Shape, ...]:
    """What is swept."""
    return SMALL if place.small else SWEEP


def products(shape: Shape, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    """The three products on random bf16 matrices."""
    tokens, hidden, vocab = shape
    draw = torch.Generator(device).manual_seed(0)
    sizes = ((tokens, hidden), (vocab, hidden), (tokens, vocab))
    h, w, d = (torch.randn(size, generator=draw, device=device, dtype=torch.bfloat16) for size in sizes)
    return {"logits": lambda: h @ w.t(), "dh": lambda: d @ w, "dw": lambda: d.t() @ h}


def rates(shape: Shape, device: str) -> dict[str, float]:
    """FLOP/s of each product, each at its best of several; `all`: of the three together."""
    tokens, hidden, vocab = shape
    flops = 2 * tokens * hidden * vocab
    took = measure.seconds(products(shape, device), repeats=_REPEATS)
    return {name: flops / seconds for name, seconds in took.items()} | {"all": 3 * flops / sum(took.values())}


def run(place: Place) -> Benchmark:
    """Measure every shape, and a large square one."""
    square = SMALL[0][0] if place.small else _SQUARE
    peak = peak_flops_here()
    rows: list[tuple[Cell, ...]] = []
    for shape in (*shapes(place), (square, square, square)):
        found = rates(shape, place.device)
        share = None if peak is None else found["all"] / peak
        rows.append((*shape, *[found[name] / 1e12 for name in ("logits", "dh", "dw", "all")], share))
    return Benchmark(
        name="gpu.gemm",
        claim="bf16 products at the head's shapes",
        setting=f"Best of {_REPEATS}, by CUDA events, from a cold cache. TFLOP/s.",
        columns=("T", "H", "V", "logits", "dh", "dw", "all three", "of the data sheet's peak"),
        rows=rows,
        notes=[
            "What the head's rate is a share of. The last row is a square product, for comparison with other machines."
        ],
    )


def main() -> None:
    place = place_of(parser(__doc__).parse_args())
    place.publish(run(place))


if __name__ == "__main__":
    main()
