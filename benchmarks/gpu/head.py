"""The log-prob head on a GPU, forward and backward: ours, others' formulations, and Liger's own code where it is there.

Every head gets responses of one length behind a prompt of one token, so that others lose nothing to prompts and
padding here: what they compute there beside is `benchmarks/head.py`'s matter. The work is 3 x 2TVH FLOPs for all of
them, however many they spend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.gpu.gemm import Shape, rates, shapes
from benchmarks.gpu.place import Place, one_rank, parser, place_of
from benchmarks.head import ETA, HEADS, Problem, Sizes, backward
from benchmarks.table import Benchmark, Cell, Goal

Head = Callable[[Problem], Tensor]

RESPONSE, SMALL_RESPONSE = 512, 16
TILES, SMALL_TILES = (1024, 4096), (32, 64)
"""Tokens of a tile of ours: the defaults on a CPU and on a GPU; the others' chunks are the latter."""
VOCAB_SLICE = 256
WANTED = 0.85
OURS, LIGER = "ours, one pass", "Liger's own code"


@dataclass(frozen=True)
class EvenSizes(Sizes):
    """Responses of one length."""

    @property
    def lengths(self) -> list[int]:
        return [self.response] * self.rows


@dataclass(frozen=True)
class Found:
    """What a head took for one shape; None where it does not fit into the GPU's memory."""

    seconds: float | None
    peak: int | None = None
    errors: tuple[float, float] | tuple[None, None] = (None, None)
    """Of the hidden states' and the weight's gradient, on a slice."""


def problem_of(shape: Shape, place: Place) -> Problem:
    """T response tokens in responses of one length, bf16."""
    tokens, hidden, vocab = shape
    response = SMALL_RESPONSE if place.small else RESPONSE
    chunk = (SMALL_TILES if place.small else TILES)[-1]
    sizes = EvenSizes(tokens // response, 1, response, hidden, vocab, chunk, torch.bfloat16)
    return Problem.draw(sizes, place.device)


def heads(place: Place) -> dict[str, Head]:
    """All heads by name; ours with every tile."""
    others = {name: head for name, head in HEADS.items() if name != OURS}
    tiles = SMALL_TILES if place.small else TILES
    ours = {f"{OURS}, tiles of {tile}": partial(_tiled, tile) for tile in tiles}
    return others | ours | ({LIGER: liger} if find_spec("liger_kernel") else {})


def _tiled(tile: int, problem: Problem) -> Tensor:
    return HEADS[OURS](replace(problem, chunk=tile))


def liger(problem: Problem) -> Tensor:
    """liger_kernel's fused head with its own hard-label SPPO, a pair at a time, compiled where there is a GPU."""
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    is_compiled = problem.weight_VH.is_cuda
    loss = LigerFusedLinearDPOLoss(beta=1 / ETA, loss_type="sppo_hard", use_ref_model=False, compiled=is_compiled)
    labels_BS = problem.labels_BS.masked_fill(problem.index_BS < 0, -100)
    return loss(problem.weight_VH, problem.hidden_SBH.transpose(0, 1), labels_BS)[0]


def truth_on_a_slice(problem: Problem) -> tuple[Tensor, Tensor]:
    """In fp32: the first response's gradient of the hidden states [S, H], and the first rows of the weight's [., H].

    Written out, a response at a time, so that it shares nothing with what it judges.
    """
    weight_VH = problem.weight_VH.detach().float()
    grad_hidden_SH, grad_weight_VH = None, torch.zeros_like(weight_VH[:VOCAB_SLICE])
    for row in range(len(problem.labels_BS)):
        hidden_SH = problem.hidden_SBH[:, row].detach().float()
        is_response_S = problem.index_BS[row] >= 0
        logps_SV = (hidden_SH @ weight_VH.t()).log_softmax(-1)
        logps_S = logps_SV.gather(-1, problem.labels_BS[row][:, None]).squeeze(-1)
        gradient = problem.dloss_dlogp(
            (logps_S * is_response_S).sum()[None], torch.tensor([row], device=hidden_SH.device)
        )
        grad_SV = logps_SV.exp().neg()
        grad_SV[torch.arange(len(grad_SV), device=grad_SV.device), problem.labels_BS[row]] += 1
        grad_SV *= gradient * is_response_S[:, None]
        grad_weight_VH += grad_SV[:, :VOCAB_SLICE].t() @ hidden_SH
        if grad_hidden_SH is None:
            grad_hidden_SH = grad_SV @ weight_VH
    assert grad_hidden_SH is not None
    return grad_hidden_SH, grad_weight_VH


def measured(name: str, head: Head, problem: Problem, truth: tuple[Tensor, Tensor]) -> Found:
    """Time, memory and error of a head."""
    run = partial(backward, head, problem)
    try:
        seconds, peak = measure.seconds({name: run})[name], measure.peak_bytes(run)
        grad_hidden_SBH, grad_weight_VH = run()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return Found(None)
    if name == LIGER:  # of another loss
        return Found(seconds, peak)
    errors = measure.error(grad_hidden_SBH[:, 0], truth[0]), measure.error(grad_weight_VH[:VOCAB_SLICE], truth[1])
    return Found(seconds, peak, errors)


def sweep(place: Place) -> tuple[list[tuple[Cell, ...]], dict[Shape, float]]:
    """Rows of the table, and our best share of the bare products' rate for every shape."""
    rows: list[tuple[Cell, ...]] = []
    shares: dict[Shape, float] = {}
    for shape in shapes(place):
        tokens, hidden, vocab = shape
        work, rate = 3 * 2 * tokens * hidden * vocab, rates(shape, place.device)["all"]
        problem = problem_of(shape, place)
        truth = truth_on_a_slice(problem)
        for name, head in heads(place).items():
            found = measured(name, head, problem, truth)
            if found.seconds is None or found.peak is None:
                rows.append((*shape, name, *[None] * 6))
                continue
            speed = work / found.seconds
            if name.startswith(OURS):
                shares[shape] = max(shares.get(shape, 0.0), speed / rate)
            figures = (found.seconds * 1e3, speed / 1e12, speed / rate, found.peak / 2**20)
            rows.append((*shape, name, *figures, *found.errors))
    return rows, shares


def run(place: Place) -> Benchmark:
    """Measure every head at every shape."""
    with one_rank(place):
        rows, shares = sweep(place)
    worst = min(shares, key=shares.__getitem__)
    measured_ = f"{shares[worst]:.2f} at T, H, V = {worst}; {max(shares.values()):.2f} at best"
    return Benchmark(
        name="gpu.head",
        claim="Log-prob head",
        setting=(
            "Forward and backward in bf16, to the gradients of hidden states and output weight. T response tokens in "
            "responses of one length; tiles and chunks in tokens. TFLOP/s count 3 x 2TVH, whatever a head computes "
            "besides; their share is of the same machine's bare products at the same T, H, V (`gpu.gemm`)."
        ),
        columns=("T", "H", "V", "head", "ms", "TFLOP/s", "of the products' rate", "peak MiB", "err dX", "err dW"),
        rows=rows,
        goals=[
            Goal(
                f"{OURS}, of the products' rate, at every shape",
                f">= {WANTED}",
                measured_,
                shares[worst] >= WANTED if place.counts else None,
            )
        ],
        notes=[
            f"Errors: largest difference from fp32 on the first response (dX) and the first {VOCAB_SLICE} rows (dW), "
            "relative to the largest element. Liger's own code has a loss of its own (hard labels), so it has none.",
            "No figures: out of memory.",
        ],
    )


def main() -> None:
    place = place_of(parser(__doc__).parse_args())
    place.publish(run(place))


if __name__ == "__main__":
    main()
