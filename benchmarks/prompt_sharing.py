"""A training step with each pair's prompt computed once, against one with a row of its own for every response.

Counted: the products of a whole step of a real Megatron model, forward and backward, on pairs of real lengths. What
they come to at the width of an 8B model follows from the same formula (`flops.py`), which the counts confirm.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import error
from benchmarks.packing import Lengths, drawn, of_answers
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    RowShape,
    packed_microbatch,
    shared_prompt_microbatch,
)
from nemo_sspo.megatron.checkpoints.weights import one_rank
from nemo_sspo.megatron.layers.attention_mask import BLOCK
from nemo_sspo.megatron.layers.spec import local_layer_spec
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, model_inputs, output_weight
from nemo_sspo.megatron.loss.loss import HeadLayout, PreferenceObjective, preference_loss
from nemo_sspo.megatron.models.flops import ModelFlops
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean

VOCAB = 512
PAIRS = 8
SCALE = 4
"""Lengths are divided by this where the small model runs: it does so on one thread."""
ALONE, SHARED = "a row for each response", "prompt shared"
LAYOUTS: dict[str, Callable[..., Microbatch]] = {ALONE: packed_microbatch, SHARED: shared_prompt_microbatch}

Sizes = tuple[int, int, int]
"""Tokens of a pair: prompt, chosen, rejected."""


def config(layers: int, hidden: int, heads: int, groups: int, ffn: int) -> TransformerConfig:
    """A Llama's."""
    return TransformerConfig(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_query_groups=groups,
        ffn_hidden_size=ffn,
        activation_func=torch.nn.functional.silu,
        gated_linear_unit=True,
        add_bias_linear=False,
        normalization="RMSNorm",
        attention_dropout=0.0,
        hidden_dropout=0.0,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
    )


SMALL = partial(config, layers=2, hidden=64, heads=4, groups=2, ffn=160)
LLAMA_8B, LLAMA_VOCAB = partial(config, layers=32, hidden=4096, heads=32, groups=8, ffn=14336), 128_256


def long_prompts(pairs: int = 512) -> Lengths:
    """As in dialogues and questions about a text: prompts four times as long as in `drawn`, cut at 2048."""
    return Lengths("log-normal, long prompts", [(min(4 * p, 2048), c, r) for p, c, r in drawn(pairs).of_pair])


def pairs_of(lengths: Sequence[Sizes]) -> list[PreferencePair]:
    """Pairs of these lengths with random tokens; each begins its reference near the untrained model's log-probs."""
    draw = random.Random(0)
    made = []
    for number, sizes in enumerate(lengths):
        prompt, chosen, rejected = ([draw.randrange(VOCAB) for _ in range(size)] for size in sizes)
        references = (-6.2 * len(chosen), -6.2 * len(rejected))
        made.append(PreferencePair(str(number), prompt, chosen, rejected, *references, 0.9, 0.2, 0.8))
    return made


@dataclass(frozen=True)
class Step:
    """One forward and backward pass of the small model over some pairs in one row."""

    slots: int
    products: int
    """FLOPs of products with weights, the head's among them, as torch counts them."""
    expected: int
    """By the formula of `flops.py`."""
    grads: dict[str, Tensor]

    @classmethod
    def of(cls, lengths: Sequence[Sizes], make: Callable[..., Microbatch]) -> Step:
        pairs = pairs_of(lengths)
        microbatch = make(pairs, [1 / len(pairs)] * len(pairs), RowShape())
        model_parallel_cuda_manual_seed(1)
        torch.manual_seed(1)
        model = GPTModel(SMALL(), local_layer_spec(SMALL()), VOCAB, 1 << 20, position_embedding_type="rope")
        group = parallel_state.get_tensor_model_parallel_group()
        with FlopCounterMode(display=False) as counter:
            loss, _ = preference_loss(
                forward_to_hidden_states(model, microbatch),
                output_weight(model),
                microbatch,
                PreferenceObjective(partial(sppo, eta=30.0), euclidean, "last"),
                HeadLayout(VOCAB, 1024, False, group, None, True, None),
                repulsion_weight=1.0,
            )
            loss.backward()
        counted = counter.get_flop_counts()["Global"]
        flops, slots = ModelFlops.of(SMALL(), VOCAB), microbatch.tokens_BS.numel()
        responses = sum(chosen + rejected for _, chosen, rejected in lengths)
        return cls(
            slots,
            sum(counted[product] for product in (torch.ops.aten.mm, torch.ops.aten.addmm)),
            flops.weight_passes * (flops.per_token * slots + flops.per_response_token * responses),
            {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None},
        )


def visited_keys(lengths: Sequence[Sizes], make: Callable[..., Microbatch]) -> int:
    """Pairs of a query and a key in the blocks that flex-attention visits, for one row of all pairs."""
    pairs = pairs_of(lengths)
    row = model_inputs(make(pairs, [1.0] * len(pairs), RowShape()))["packed_seq_params"]
    mask = row.attention_mask(int(row.cu_seqlens_q[-1]), None, 0, 1).block_mask
    return int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) * BLOCK * BLOCK


def of_a_large_model(lengths: Lengths, *, shared: bool) -> float:
    """FLOPs of Llama-3-8B's training on a pair, on average."""
    work = ModelFlops.of(LLAMA_8B(), LLAMA_VOCAB).of_step(lengths.of_pair, shares_prompts=shared)
    return work.flops / len(lengths.of_pair)


def small(lengths: Lengths) -> list[Sizes]:
    """The first pairs, short enough for the small model."""
    return [(max(1, p // SCALE), max(1, c // SCALE), max(1, r // SCALE)) for p, c, r in lengths.of_pair[:PAIRS]]


def largest_difference(found: Step, truth: Step) -> float:
    """Over the gradients of all parameters, each relative to its largest element."""
    return max(error(found.grads[name], truth.grads[name]) for name in truth.grads)


def run(sources: Sequence[Lengths]) -> Benchmark:
    """Count a step over every source of lengths, in either layout."""
    rows: list[tuple[Cell, ...]] = []
    goals = []
    for lengths in sources:
        steps = {name: Step.of(small(lengths), make) for name, make in LAYOUTS.items()}
        large = {
            name: of_a_large_model(lengths, shared=make is shared_prompt_microbatch) for name, make in LAYOUTS.items()
        }
        alone, shared = steps.values()
        for name, make in LAYOUTS.items():
            visited = visited_keys(lengths.of_pair[:PAIRS], make) / 1e6
            whole = large[name] / 1e12
            found = steps[name]
            rows.append(
                (lengths.name, name, found.slots, found.products / 1e9, visited, whole, whole / large[ALONE] * 1e12)
            )
        wrong = largest_difference(shared, alone)
        ratio = shared.products / shared.expected
        goals += [
            Goal(
                f"{lengths.name}: products", "the formula's", f"{ratio:.4f} of them", shared.products == shared.expected
            ),
            Goal(f"{lengths.name}: gradients of either layout", "equal to 1e-5", f"{wrong:.1e}", wrong < 1e-5),
        ]
    return Benchmark(
        name="prompt_sharing",
        claim="A pair's prompt computed once",
        setting=(
            f"One training step over {PAIRS} pairs in one row. Products with weights: counted in a Llama of 2 layers, "
            f"width 64 and fp32, lengths divided by {SCALE}. Attention: tokens in the blocks of {BLOCK} x {BLOCK} that "
            "flex-attention visits, at the true lengths. Llama-3-8B: by the formula, over all pairs."
        ),
        columns=(
            "lengths",
            "layout",
            "slots",
            "products, GFLOP",
            "attention, millions of keys",
            "Llama-3-8B, TFLOP a pair",
            "of a row each",
        ),
        rows=rows,
        goals=goals,
        notes=[
            "Lengths are those of the packing benchmark; long prompts are four times as long, up to 2,048 tokens.",
            "The responses' own tokens, and the head over them, are computed in either layout.",
            "Prompts much shorter than a block save attention nothing: a response's blocks then visit their prompt's "
            "as one block more.",
            "Differences of gradients are the largest element's, relative to the largest element of each parameter.",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory with arena_hard_v0.1_{questions,answers_*}.jsonl")
    options = parser.parse_args()
    sources = [drawn(512), long_prompts()]
    if options.data is not None:
        first, second, *_ = sorted(options.data.glob("arena_hard_v0.1_answers_*.jsonl"))
        sources.append(of_answers(first, second, options.data / "arena_hard_v0.1_questions.jsonl"))
    with one_rank():
        run(sources).with_kept([lengths.name for lengths in sources]).publish()


if __name__ == "__main__":
    main()
