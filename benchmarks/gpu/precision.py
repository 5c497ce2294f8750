"""FP8 against bf16 on one microbatch of an 8B-shaped Llama: loss, gradients, and seconds forward and backward.

No optimizer and no gradient buffers here; `train_step.py` has those. On a processor, where there is no FP8, bf16 is
held against fp32 by the same lines.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from megatron.core.transformer.module import Float16Module
from nemo.lightning.pytorch.plugins.mixed_precision import update_config_with_dtype_overrides
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.gpu.place import Place, one_rank, place_of
from benchmarks.gpu.world import World, objective, parser, random_pairs, write_policy
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision, Precision
from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import Microbatch, packed_microbatch
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.checkpoints.weights import load_weights
from nemo_sspo.megatron.head.choice import head_tile
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, output_weight, unwrap
from nemo_sspo.megatron.loss.loss import HeadLayout, preference_loss
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.precision import precision_plugin
from nemo_sspo.megatron.runtime.groups import Groups, groups_of_one_rank

PAIRS = 8
TOKEN_MULTIPLE = 16
PASSES = 3
"""Before anything is compared or timed: kernels are compiled and chosen."""
WANTED_LOSS, WANTED_COSINE, WANTED_SPEED = 0.01, 0.95, 1.3

ON_GPU: dict[str, Precision] = {
    "bf16": Bf16Precision(),
    "bf16, again": Bf16Precision(),
    "fp8, tensorwise": Fp8Precision(recipe="tensorwise"),
    "fp8, blockwise": Fp8Precision(recipe="blockwise"),
}
ON_CPU: dict[str, Precision] = {"fp32": Fp32Precision(), "fp32, again": Fp32Precision(), "bf16": Bf16Precision()}
"""The first of each is what the others are held against."""


@dataclass(frozen=True)
class Found:
    """One precision's microbatch."""

    loss: float
    grads: dict[str, Tensor]
    """bf16 or fp32, on the host."""
    seconds: float


def microbatch(world: World) -> Microbatch:
    """A packed row of a few pairs."""
    table = random_pairs(world)
    shape = RowShape.for_layout(tensor=1, context=1, sequence_parallel=False, token_multiple=TOKEN_MULTIPLE)
    made = packed_microbatch([table[row] for row in range(PAIRS)], [1 / PAIRS] * PAIRS, shape)
    return made.to(torch.cuda.current_device())


def build(precision: Precision, world: World, folder: Path) -> nn.Module:
    """The model that a training in this precision has, without what distributes it."""
    config = training_config(folder / "hf", Parallel(), precision, world.settings())
    config = update_config_with_dtype_overrides(precision_plugin(precision).dtype_config, config)
    config.gradient_accumulation_fusion = False  # it writes to the buffers of Megatron's data parallelism
    model = config.configure_model(tokenizer=None)
    load_weights([model], folder / "nemo")
    model.to(torch.cuda.current_device())
    return model if precision.kind == "fp32" else Float16Module(config, model)


def backward(model: nn.Module, batch: Microbatch, world: World) -> Tensor:
    """The microbatch's loss; its gradients are the parameters'."""
    model.zero_grad()
    layout = HeadLayout.of(
        unwrap(model).config,
        Groups.of_megatron(),
        vocab_size=world.vocab,
        chunk_tokens=head_tile(world.settings()),
        one_pass=True,
    )
    hidden_SBH = forward_to_hidden_states(model, batch)
    loss, _ = preference_loss(hidden_SBH, output_weight(model), batch, objective(), layout, repulsion_weight=1.0)
    loss.backward()
    return loss.detach()


def measured(precision: Precision, world: World, folder: Path) -> Found:
    """Build, warm up, compute and time."""
    model, batch = build(precision, world, folder), microbatch(world)
    run = partial(backward, model, batch, world)
    for _ in range(PASSES):
        loss = run()
    grads = {
        name.removeprefix("module."): parameter.grad.cpu()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return Found(loss.item(), grads, measure.seconds({"step": run})["step"])


def difference(found: Found, base: Found) -> tuple[float, float, float]:
    """Relative difference of the loss; that of all gradients as one vector, and the cosine between them."""
    sums = torch.zeros(4, dtype=torch.float64)
    for name, right in base.grads.items():
        a, b = found.grads[name].float(), right.float()
        parts = ((a - b).square(), a.square(), b.square(), a * b)
        sums += torch.stack([part.sum(dtype=torch.float64) for part in parts])
    apart, own, its, product = sums
    return abs(found.loss / base.loss - 1), float((apart / its).sqrt()), float(product / (own * its).sqrt())


def compare(place: Place, world: World, folder: Path) -> tuple[list[tuple[Cell, ...]], list[Goal], list[str]]:
    """Rows, goals, and what this machine refuses."""
    rows: list[tuple[Cell, ...]] = []
    goals, refused, base = [], [], None
    for name, precision in (ON_GPU if place.device == "cuda" else ON_CPU).items():
        try:
            found = measured(precision, world, folder)
        except UserError as error:
            refused.append(f"{name}: {error}")
            continue
        base = found if base is None else base
        loss, gradient, cosine = difference(found, base)
        speed = base.seconds / found.seconds
        rows.append((name, found.loss, found.seconds * 1e3, speed, loss, gradient, cosine))
        if precision.kind == "fp8":
            goals += _goals(name, loss, cosine, speed, place)
        del found
        if place.device == "cuda":
            torch.cuda.empty_cache()
    return rows, goals, refused


def _goals(name: str, loss: float, cosine: float, speed: float, place: Place) -> list[Goal]:
    def goal(what: str, wanted: str, value: float, is_met: bool) -> Goal:
        return Goal(f"{name}: {what}", wanted, f"{value:.4g}", is_met if place.counts else None)

    return [
        goal("loss, relative difference", f"<= {WANTED_LOSS}", loss, loss <= WANTED_LOSS),
        goal("gradients, cosine", f">= {WANTED_COSINE}", cosine, cosine >= WANTED_COSINE),
        goal("forward and backward, speed-up", f">= {WANTED_SPEED}", speed, speed >= WANTED_SPEED),
    ]


def run(place: Place, world: World, folder: Path) -> Benchmark:
    """Hold every precision against the first."""
    write_policy(world, folder)
    with nemo_cpu_runtime(), one_rank(place), groups_of_one_rank():
        rows, goals, refused = compare(place, world, folder)
    return Benchmark(
        name="gpu.precision",
        claim="FP8 against bf16",
        setting=(
            f"One packed microbatch of {PAIRS} pairs, forward and backward, from equal bf16 weights: Llama of H = "
            f"{world.hidden}, FFN {world.ffn}, V = {world.vocab}, {world.layers} layers. After {PASSES} passes."
        ),
        columns=("precision", "loss", "ms", "speed-up", "loss differs by", "gradients differ by", "cosine"),
        rows=rows,
        goals=goals,
        notes=[
            "Gradients as one vector: the norm of the difference over the norm. The same precision again shows what "
            "the order of atomic additions makes of them.",
            "Random weights are a hard case: a trained model's gradients stand further out of the rounding.",
            *refused,
        ],
    )


def main() -> None:
    options = parser(__doc__).parse_args()
    place = place_of(options)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="precision.") as folder:
        place.publish(run(place, World.of(place, options.layers), Path(folder)))


if __name__ == "__main__":
    main()
