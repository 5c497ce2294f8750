"""The log-prob head, forward and backward: ours and others' on the same tensors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import measure, peers
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.megatron.head import tile as softmax_tile
from nemo_sspo.megatron.head import tile_torch
from nemo_sspo.megatron.head.one_pass import one_pass_logps
from nemo_sspo.megatron.head.recompute import response_logps
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.pair_batch import PairBatch, PairTargets

ETA = 1000.0


@dataclass(frozen=True)
class Sizes:
    rows: int
    prompt: int
    response: int
    """Tokens of the longest; the others are shorter, down to a half, and padded."""
    hidden: int
    vocab: int
    chunk: int
    """Tokens whose logits the chunked heads hold at once."""
    dtype: torch.dtype

    @property
    def lengths(self) -> list[int]:
        """Response tokens of each row."""
        return [self.response - row * self.response // (2 * self.rows) for row in range(self.rows)]

    @property
    def slots(self) -> int:
        """Tokens of the padded rows, T."""
        return self.rows * (self.prompt + self.response)

    @property
    def gemm(self) -> int:
        """FLOPs of one product per token."""
        return 2 * self.hidden * self.vocab


@dataclass(frozen=True)
class Problem:
    hidden_SBH: Tensor
    weight_VH: Tensor
    labels_BS: Tensor
    index_BS: Tensor
    reference_R: Tensor
    target_R: Tensor
    chunk: int

    @classmethod
    def draw(cls, sizes: Sizes, device: str) -> Problem:
        draw = torch.Generator().manual_seed(0)
        length = sizes.prompt + sizes.response
        hidden = torch.randn(length, sizes.rows, sizes.hidden, generator=draw)
        weight = torch.randn(sizes.vocab, sizes.hidden, generator=draw) / sizes.hidden**0.5
        labels = torch.randint(sizes.vocab, (sizes.rows, length), generator=draw)
        index = torch.full((sizes.rows, length), -1)
        for row, tokens in enumerate(sizes.lengths):
            index[row, sizes.prompt - 1 : sizes.prompt - 1 + tokens] = row
        reference = -torch.tensor(sizes.lengths) * float(torch.tensor(sizes.vocab).log())
        target = torch.rand(sizes.rows, generator=draw)
        tensors = (x.to(device) for x in (labels, index, reference, target))
        return cls(*(x.to(device, sizes.dtype).requires_grad_() for x in (hidden, weight)), *tensors, sizes.chunk)

    def loss(self, logps: Tensor, indices: Tensor) -> Tensor:
        """SPPO of some responses, over all pairs."""
        return self._of_each(logps, indices).sum()

    def dloss_dlogp(self, logps: Tensor, indices: Tensor) -> Tensor:
        with torch.enable_grad():
            logps = logps.detach().requires_grad_()
            return torch.autograd.grad(self.loss(logps, indices), logps)[0]

    def _of_each(self, logps: Tensor, indices: Tensor) -> Tensor:
        reference, target = self.reference_R[indices], self.target_R[indices]
        half, one = torch.full_like(target, 0.5), torch.ones_like(target)
        pairs = PairBatch(
            logps_B2=torch.stack([logps, reference], dim=-1),
            ref_logps_B2=torch.stack([reference, reference], dim=-1),
            targets=PairTargets(target, half, half),
            lengths_B2=torch.stack([one, one], dim=-1),
            weight_B=one,
        )
        return sppo(pairs, eta=ETA) / len(self.reference_R) * 2

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.hidden_SBH, self.weight_VH, self.labels_BS, self.index_BS


def _ours(problem: Problem, *, one_pass: bool) -> Tensor:
    head = partial(one_pass_logps, dloss_dlogp=problem.dloss_dlogp) if one_pass else response_logps
    rows, vocab = len(problem.labels_BS), len(problem.weight_VH)
    logps_R = head(*problem.inputs, rows, vocab_size=vocab, chunk_tokens=problem.chunk, tp_group=dist.group.WORLD)
    return problem.loss(logps_R, torch.arange(rows, device=logps_R.device))


def _in_plain_torch(problem: Problem) -> Tensor:
    """The one-pass head as it is without Triton; all of it runs forward."""
    with mock.patch.object(softmax_tile, "math_on", return_value=tile_torch):
        return _ours(problem, one_pass=True)


def _peer(head: Callable[..., Tensor], problem: Problem) -> Tensor:
    return head(*problem.inputs, problem.loss)


HEADS: dict[str, Callable[[Problem], Tensor]] = {
    "SPPO trainer's (all logits)": partial(_peer, peers.full_logits),
    "TRL's (all logits, selective)": partial(_peer, peers.selective),
    "NeMo-RL's (chunks, computed twice)": lambda problem: _peer(partial(peers.chunked, chunk=problem.chunk), problem),
    "Liger's (a pair at a time)": partial(_peer, peers.in_forward),
    "ours, recompute": partial(_ours, one_pass=False),
    "ours, one pass": partial(_ours, one_pass=True),
}
if torch.cuda.is_available():  # elsewhere it is the same
    HEADS["ours, one pass, without Triton"] = _in_plain_torch


def backward(head: Callable[[Problem], Tensor], problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of hidden states and weight."""
    return torch.autograd.grad(head(problem), (problem.hidden_SBH, problem.weight_VH))


def counted(sizes: Sizes, device: str = "cpu") -> dict[str, tuple[int, int]]:
    """(FLOPs, peak bytes) of every head."""
    problem = Problem.draw(sizes, device)
    found = {}
    for name, head in HEADS.items():
        run = partial(backward, head, problem)
        found[name] = measure.flops(run), measure.peak_bytes(run)
    return found


def truth(sizes: Sizes, device: str) -> tuple[Tensor, Tensor]:
    """Gradients in double precision, of the inputs as `sizes.dtype` holds them."""
    problem = Problem.draw(sizes, device)
    hidden, weight = (x.detach().double().requires_grad_() for x in (problem.hidden_SBH, problem.weight_VH))
    logps_BSV = (hidden @ weight.t()).transpose(0, 1).log_softmax(-1)
    logps_BS = logps_BSV.gather(-1, problem.labels_BS[..., None]).squeeze(-1)
    sums = (logps_BS * (problem.index_BS >= 0)).sum(-1)
    return torch.autograd.grad(problem.loss(sums, torch.arange(len(sums), device=device)), (hidden, weight))


def run(sizes: Sizes, device: str) -> Benchmark:
    """Count and time every head."""
    expected = truth(sizes, device)
    problem = Problem.draw(sizes, device)
    costs = counted(sizes, device)
    times = measure.seconds({name: partial(backward, head, problem) for name, head in HEADS.items()})
    share = costs["ours, one pass"][0] / times["ours, one pass"] / _gemm_rate(problem, sizes)
    rows: list[tuple[Cell, ...]] = []
    for name, head in HEADS.items():
        grads = backward(head, problem)
        flops, peak = costs[name]
        errors = [measure.error(found, right) for found, right in zip(grads, expected, strict=True)]
        rows.append((name, flops / 1e9, peak / 2**20, times[name], *errors))
    return Benchmark(
        name="head",
        claim="Log-prob head, forward and backward",
        setting=_setting(sizes),
        columns=("head", "GFLOP", "peak MiB", "seconds", "error of dX", "error of dW"),
        rows=rows,
        goals=[*_goals(costs, sizes), _rate_goal(share, sizes)],
        notes=[
            "Errors are the largest difference from double precision, relative to the largest element.",
            "Ours takes response tokens only and needs no logits but a tile's; SPPO's gradient of a response is known "
            "when its sum is, so nothing is computed twice.",
            "An 8B model's head on a GPU: `python -m benchmarks.head --prompt 512 --response 1536 --hidden 4096 "
            "--vocab 128256 --chunk 2048 --dtype bfloat16`.",
        ],
    )


def _setting(sizes: Sizes) -> str:
    return (
        f"{sizes.rows // 2} pairs, prompts of {sizes.prompt} and responses of {sizes.lengths[-1]}-{sizes.response} "
        f"tokens ({sum(sizes.lengths)} of {sizes.slots} slots are response), H = {sizes.hidden}, V = {sizes.vocab}, "
        f"{str(sizes.dtype).removeprefix('torch.')}, tiles of {sizes.chunk} tokens, SPPO."
    )


def _goals(costs: dict[str, tuple[int, int]], sizes: Sizes) -> list[Goal]:
    ours, others = costs["ours, one pass"], costs["NeMo-RL's (chunks, computed twice)"]
    exact = 3 * sizes.gemm * sum(sizes.lengths)
    share = ours[0] / others[0]
    wanted = 0.75 * sum(sizes.lengths) / sizes.slots
    all_logits = min(costs[name][1] for name in list(HEADS)[:2])
    return [
        Goal("FLOPs", "3 x 2TVH over response tokens", f"{ours[0] / exact:.4f} of that", ours[0] == exact),
        Goal("FLOPs, of NeMo-RL's", f"3/4 x response share = {wanted:.3f}", f"{share:.3f}", share <= wanted * 1.0001),
        Goal("peak, of all-logits heads", "< 0.5", f"{ours[1] / all_logits:.3f}", ours[1] < 0.5 * all_logits),
    ]


def _gemm_rate(problem: Problem, sizes: Sizes) -> float:
    """FLOP/s of one product of a tile's size, nothing else."""
    hidden = problem.hidden_SBH.detach().flatten(0, 1)[: sizes.chunk]
    weight = problem.weight_VH.detach()
    took = measure.seconds({"gemm": lambda: hidden @ weight.t()})["gemm"]
    return len(hidden) * sizes.gemm / took


def _rate_goal(share: float, sizes: Sizes) -> Goal:
    on_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
    is_met = share >= 0.85 if on_hopper and sizes.dtype == torch.bfloat16 else None
    return Goal("FLOP/s of a bare product's", ">= 0.85 on a Hopper GPU in bf16", f"{share:.2f}", is_met)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 8), ("prompt", 64), ("response", 192), ("hidden", 512), ("vocab", 16_032)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chunk", type=int, default=256, help="tokens whose logits exist at once")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = vars(parser.parse_args())
    dtype = getattr(torch, options.pop("dtype"))
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.set_num_threads(1)
    run(Sizes(**options, dtype=dtype), "cuda" if on_gpu else "cpu").publish()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
