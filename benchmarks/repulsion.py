"""What latent repulsion costs on top of SPPO, in everything that comes after the last layer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import measure
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.megatron.batches.microbatch import Microbatch, PreferencePair, padded_microbatch
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.loss import loss as losses
from nemo_sspo.megatron.loss.loss import (
    HeadLayout,
    PreferenceObjective,
    microbatch_logps,
    preference_loss,
)
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean

ETA = 1000.0
BESIDE = "beside the head"


@dataclass(frozen=True)
class Sizes:
    pairs: int
    prompt: int
    response: int
    hidden: int
    vocab: int
    chunk: int


def microbatch(sizes: Sizes) -> Microbatch:
    """Pairs whose responses are shorter from pair to pair, down to a half."""
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(sizes.vocab, (length,), generator=draw).tolist()

    pairs = []
    for number in range(sizes.pairs):
        length = sizes.response - number * sizes.response // (2 * sizes.pairs)
        logp = -length * float(torch.tensor(sizes.vocab).log())
        pairs.append(
            PreferencePair(f"{number}", ids(sizes.prompt), ids(length), ids(length), logp, logp, 0.8, 0.3, 0.7)
        )
    return padded_microbatch(pairs, [1 / sizes.pairs] * sizes.pairs, RowShape())


@dataclass(frozen=True)
class Step:
    """The part of a step that follows the last layer."""

    hidden_SBH: Tensor
    weight_VH: Tensor
    microbatch: Microbatch
    layout: HeadLayout
    pooling: str

    @classmethod
    def draw(cls, sizes: Sizes, device: str, pooling: str = "last") -> Step:
        made = microbatch(sizes).to(device)
        rows, length = made.tokens_BS.shape
        draw = torch.Generator().manual_seed(1)
        hidden = torch.randn(length, rows, sizes.hidden, generator=draw).to(device).requires_grad_()
        weight = (torch.randn(sizes.vocab, sizes.hidden, generator=draw) / sizes.hidden**0.5).to(device)
        layout = HeadLayout(sizes.vocab, sizes.chunk, False, dist.group.WORLD, None, one_pass=True)
        return cls(hidden, weight.requires_grad_(), made, layout, pooling)

    def s_sppo(self, weight: float) -> tuple[Tensor, Tensor]:
        """Gradients of the objective with this lambda."""
        objective = PreferenceObjective(partial(sppo, eta=ETA), euclidean, self.pooling, separable=True)
        loss, _ = preference_loss(
            self.hidden_SBH, self.weight_VH, self.microbatch, objective, self.layout, repulsion_weight=weight
        )
        return torch.autograd.grad(loss, (self.hidden_SBH, self.weight_VH))

    def sppo(self) -> tuple[Tensor, Tensor]:
        """Gradients of SPPO: no pooled states, nothing measured of them."""

        def dloss_dlogp(logps: Tensor, indices: Tensor) -> Tensor:
            return self._residual(logps, indices) / len(self.microbatch.ref_logps_P2)

        logps_P2 = microbatch_logps(self.hidden_SBH, self.weight_VH, self.microbatch, self.layout, dloss_dlogp)
        loss = 0.5 * self._residual(logps_P2.flatten(), torch.arange(logps_P2.numel())).square().sum()
        return torch.autograd.grad(loss / len(logps_P2), (self.hidden_SBH, self.weight_VH))

    def beside_the_head(self) -> Tensor:
        """The hidden states' gradient under S-SPPO with a head that multiplies nothing: what is left is pooling, the
        repulsion, its metrics and the sum of both terms' gradients; a little of it SPPO does too."""
        logps = lambda hidden_SBH, *_: hidden_SBH[0, :, 0].float().view(-1, 2)  # noqa: E731
        objective = PreferenceObjective(partial(sppo, eta=ETA), euclidean, self.pooling, separable=True)
        with mock.patch.object(losses, "microbatch_logps", logps):
            loss, _ = preference_loss(
                self.hidden_SBH, self.weight_VH, self.microbatch, objective, self.layout, repulsion_weight=1.0
            )
        return torch.autograd.grad(loss, self.hidden_SBH)[0]

    def _residual(self, logps: Tensor, indices: Tensor) -> Tensor:
        target_R = ETA * (self.microbatch.targets_P3[:, :2] - 0.5) + self.microbatch.ref_logps_P2
        return logps - target_R.flatten()[indices]


def variants(step: Step) -> dict[str, Callable[[], object]]:
    """What is compared."""
    return {
        "SPPO alone": step.sppo,
        "lambda = 0": partial(step.s_sppo, 0.0),
        "lambda = 1": partial(step.s_sppo, 1.0),
    }


@dataclass(frozen=True)
class Costs:
    """Counted: equal on every machine."""

    flops: int
    peak: int
    """Bytes."""
    traffic: int
    """Bytes read and written."""


def counted(sizes: Sizes, device: str = "cpu", pooling: str = "last") -> dict[str, Costs]:
    """Of each variant."""
    step = Step.draw(sizes, device, pooling)
    for run in variants(step).values():
        run()
    return {
        name: Costs(measure.flops(run), measure.peak_bytes(run), measure.traffic(run))
        for name, run in variants(step).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("pairs", 4), ("prompt", 64), ("response", 192), ("hidden", 512), ("vocab", 16_032)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chunk", type=int, default=256, help="tokens whose logits exist at once")
    sizes = Sizes(**vars(parser.parse_args()))
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.set_num_threads(1)
    run(sizes, "cuda" if on_gpu else "cpu").publish()
    dist.destroy_process_group()


def run(sizes: Sizes, device: str) -> Benchmark:
    """Count and time every variant, for both poolings."""
    rows: list[tuple[Cell, ...]] = []
    goals = []
    for pooling in ("last", "mean"):
        costs, step = counted(sizes, device, pooling), Step.draw(sizes, device, pooling)
        times = measure.seconds(variants(step) | {BESIDE: step.beside_the_head}, repeats=9)
        for name, cost in costs.items():
            rows.append((pooling, name, cost.flops / 1e9, cost.peak / 2**20, cost.traffic / 2**20, times[name]))
        rows.append((pooling, BESIDE, None, None, measure.traffic(step.beside_the_head) / 2**20, times[BESIDE]))
        for base in ("SPPO alone", "lambda = 0"):
            memory = costs["lambda = 1"].peak / costs[base].peak
            goals.append(Goal(f"{pooling}: peak of {base}", "<= 1.005", f"{memory:.4f}", memory <= 1.005))
        time = 1 + times[BESIDE] / times["SPPO alone"]
        goals.append(Goal(f"{pooling}: time of SPPO alone", "<= 1.01", f"< {time:.4f}", time <= 1.01))
        same = costs["lambda = 1"].traffic / costs["lambda = 0"].traffic
        goals.append(Goal(f"{pooling}: bytes moved of lambda = 0", "1", f"{same:.4f}", same == 1))
    return Benchmark(
        name="repulsion",
        claim="Latent repulsion for free",
        setting=(
            f"From the last layer's output to its gradient and the output weight's: {sizes.pairs} pairs, prompts of "
            f"{sizes.prompt} and responses up to {sizes.response} tokens, H = {sizes.hidden}, V = {sizes.vocab}, fp32. "
            "A whole step has all layers beside it, so its ratios are nearer to 1."
        ),
        columns=("pooling", "objective", "GFLOP", "peak MiB", "MiB moved", "seconds"),
        rows=rows,
        goals=goals,
        notes=[
            "The difference of two such times is below a machine's noise. So what repulsion adds is timed alone: the "
            f"whole step with a head that multiplies nothing ({BESIDE}), over SPPO's time; a little of it SPPO does "
            "too, so the ratio is an upper bound.",
            "MiB moved: what operations read and write, each tensor once per operation.",
        ],
    )


if __name__ == "__main__":
    main()
