"""Scoring real answers with PairRM: ours and llm-blender's own loop, on one checkpoint and one set of texts."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.arena_hard import DATA, prompts_with_answers, with_noisy_copies
from benchmarks.packing import drawn
from benchmarks.pairrm_floor import gemm_rate, needed_flops
from benchmarks.pairrm_scorers import Cost, Prompt, llm_blenders, ours, row_lengths, rows_of
from benchmarks.random_pairrm import POOL, SIZES, folder_for_checkpoints, make_checkpoint, train_tokenizer
from benchmarks.resident import in_fresh_process, measured
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.oracle.pairrm.model import PairRM

WANTED = 5.0
_TOKENIZER_TEXTS = 60
_LENGTHS = ("Arena-Hard", "like UltraFeedback's")
_DEFAULT_BATCH = 8
"""llm-blender's default, where its callers name none."""


@dataclass(frozen=True)
class Sample:
    """How many rows a size is measured on."""

    prompts: int
    k: int
    """Responses of each: k (k - 1) rows."""


SAMPLES = {
    "toy": Sample(8, 5),
    "DeBERTa-v3-xsmall": Sample(4, 2),
    "DeBERTa-v3-base": Sample(2, 2),
}
"""As many as a processor core does in a few minutes. The large is measured on a GPU: benchmarks/gpu/pairrm.py."""


def texts(data: Path, sample: Sample, lengths: str, tokenizer: PreTrainedTokenizerFast) -> list[Prompt]:
    """Arena-Hard's prompts with their answers and noisy copies, whole or cut to lengths like UltraFeedback's."""
    found = prompts_with_answers(data, sample.prompts)
    prompts = [(prompt, with_noisy_copies(answers, seed, sample.k)) for seed, (prompt, answers) in enumerate(found)]
    if lengths == _LENGTHS[0]:
        return prompts

    def cut(text: str, tokens: int) -> str:
        return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:tokens])

    cuts = drawn(sample.prompts).of_pair
    return [
        (cut(prompt, of_prompt), tuple(cut(text, of_text[place % 2]) for place, text in enumerate(answers)))
        for (prompt, answers), (of_prompt, *of_text) in zip(prompts, cuts, strict=True)
    ]


def costs(checkpoint: Path, prompts: Sequence[Prompt], *, batches: bool) -> list[Cost]:
    """Ours first, then llm-blender's own loop, then variants of both."""
    found = [ours(checkpoint, prompts), llm_blenders(checkpoint, prompts)]
    if batches:
        found.append(llm_blenders(checkpoint, prompts, _DEFAULT_BATCH))
    return [*found, ours(checkpoint, prompts, "bfloat16")]


class Report:
    """Rows and goals as they are measured."""

    def __init__(self) -> None:
        self.rows: list[tuple[Cell, ...]] = []
        self.goals: list[Goal] = []
        self.error = 0.0

    def add(self, name: str, lengths: str, found: list[Cost], floor: float) -> None:
        """One size on one set of texts; `floor` is the seconds of the matrix products that every scorer must do."""
        mine, theirs = found[0], found[1]
        for cost in found:
            count = len(cost.logits)
            error = float(np.abs(cost.logits - theirs.logits).max())
            share = floor / cost.seconds if "bfloat16" not in cost.scorer else None
            rate = count / cost.seconds
            cells = (count, rate, rate / 2, f"{cost.padding:.2%}", share, cost.peak_mib, f"{error:.1e}")
            self.rows.append((name, lengths, cost.scorer, *cells))
        self.error = max(self.error, float(np.abs(mine.logits - theirs.logits).max()))
        ratio, most = theirs.seconds / mine.seconds, theirs.seconds / floor
        measured_ratio = f"{ratio:.2f} x, of {most:.2f} x at which nothing but the products were left"
        self.goals.append(
            Goal(f"rows a second, {name}, {lengths}", f">= {WANTED:g} x", measured_ratio, ratio >= WANTED)
        )


def pool_peak(checkpoint: Path, prompts: Sequence[Prompt]) -> float:
    """MiB that scoring takes beyond the loaded model and the rows that it is given, which are a shard's."""
    oracle = PairRM(PairRMOracle(path=str(checkpoint)), "cpu")
    oracle.compare(rows_of(prompts[:1]))  # what is loaded at the first use
    rows = rows_of(prompts)
    return measured(lambda: oracle.compare(rows))[0].peak_mib


def short_texts(data: Path, count: int, tokenizer: PreTrainedTokenizerFast) -> list[Prompt]:
    """As many prompts as that, all different: Arena-Hard's beginnings, numbered."""
    found = texts(data, Sample(min(count, 500), 5), _LENGTHS[1], tokenizer)
    return [
        (f"{number} {prompt[:60]}", tuple(f"{number} {answer[:60]}" for answer in answers))
        for number, (prompt, answers) in zip(range(count), itertools.cycle(found))
    ]


def memory(data: Path, folder: Path, tokenizer: PreTrainedTokenizerFast, count: int, goals: list[Goal]) -> None:
    """Peak memory at one and at ten times `count` prompts, around a model that takes next to nothing."""
    checkpoint = make_checkpoint(folder / "pool", POOL, tokenizer)
    samples = [short_texts(data, prompts, tokenizer) for prompts in (count, 10 * count)]
    small, large = (in_fresh_process(pool_peak, checkpoint, prompts) for prompts in samples)
    goals.append(
        Goal(
            f"peak memory, {20 * count:,} -> {200 * count:,} rows",
            "flat (< 1.2 x)",
            f"{small:.0f} MiB -> {large:.0f} MiB, {large / small:.2f} x",
            large < 1.2 * small,
        )
    )


def run(data: Path, samples: dict[str, Sample], memory_prompts: int) -> Benchmark:
    """Measure every size at both lengths, and memory at one and ten times the rows."""
    some = prompts_with_answers(data, _TOKENIZER_TEXTS // 3)
    tokenizer = train_tokenizer([text for prompt, answers in some for text in (prompt, *answers)], vocabulary=4000)
    report = Report()
    with folder_for_checkpoints() as folder:
        for name, sample in samples.items():
            checkpoint = make_checkpoint(Path(folder) / name, SIZES[name], tokenizer)
            rate = gemm_rate(SIZES[name])
            for lengths in _LENGTHS:
                prompts = texts(data, sample, lengths, tokenizer)
                floor = needed_flops(SIZES[name], row_lengths(checkpoint, prompts)) / rate
                found = costs(checkpoint, prompts, batches=sample.prompts >= _DEFAULT_BATCH)
                print(f"{name}, {lengths}: {floor:.1f} s at the least, {found}", flush=True)
                report.add(name, lengths, found, floor)
        report.goals.append(
            Goal("error between the two, float32", "< 1e-5", f"{report.error:.1e}", report.error < 1e-5)
        )
        if memory_prompts:
            memory(data, Path(folder), tokenizer, memory_prompts, report.goals)
    return Benchmark(
        name="pairrm",
        claim="Scoring with PairRM, all ordered pairs of a prompt's responses",
        setting=(
            "Arena-Hard v0.1: real prompts, two real answers each, for the toy three copies without a tenth of their "
            "words too; whole, or cut to tokens drawn like UltraFeedback's (medians of 100 and 270). PairRM's "
            "architecture with random weights and its limits of 1224 and 412 tokens, fp32 where nothing else is said, "
            "one thread; seconds are of the processor. Memory is the growth of the resident peak, error the largest "
            "difference from llm-blender's logits. The floor is the time of the matrix products that no exact scorer "
            "can leave out, without padding, at the rate measured here for products of the model's size."
        ),
        columns=(
            "size",
            "texts",
            "scorer",
            "rows",
            "rows/s",
            "pairs/s",
            "padding",
            "floor / time",
            "peak MiB",
            "error",
        ),
        rows=report.rows,
        goals=report.goals,
        notes=[
            "Ours packs rows of like length, computes equal rows once, the last layer at three tokens only, the "
            "projected table of positions once and of it the places that a row reaches, and attention in pieces that "
            "stay in cache.",
            "llm-blender's loop takes one prompt a batch, as the official SPPO pipeline calls it; its default are "
            f"batches of {_DEFAULT_BATCH}, in which it also cuts differently.",
            "Long rows of a wide model are matrix products, and both must do the same ones in the same precision: the "
            "ratio is bounded there. bfloat16 (`oracle.precision`) halves the products and is no longer the same.",
            "Memory is measured around a model of one layer of width 32, in a process of its own, on short texts, "
            "beyond the shard's rows themselves. The smaller run is four windows of rows, after which the tokenizer's "
            "cache of words is full.",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="directory with the Arena-Hard files")
    parser.add_argument("--sizes", nargs="+", choices=list(SAMPLES), help="all without it")
    parser.add_argument("--prompts", type=int, help="prompts of every size (500 is all)")
    parser.add_argument("--memory-prompts", type=int, default=840, help="prompts of the smaller memory run; 0: none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = {
        name: Sample(options.prompts or SAMPLES[name].prompts, SAMPLES[name].k) for name in options.sizes or SAMPLES
    }
    run(options.data, samples, options.memory_prompts).publish()


if __name__ == "__main__":
    main()
