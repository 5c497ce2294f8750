"""Token slots of an epoch: whole pairs packed into level rows, against rows padded to the longest of a batch.

Lengths are drawn, or those of real answers: two files of Arena-Hard answers (JSONL) give a pair to every question.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.batches.batch_plan import shuffled
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.words import counted

BYTES_PER_TOKEN = 4
"""Of English text under the tokenizers of current models, roughly; ratios of slots hardly depend on it."""
PADDED_PAIRS = 8


@dataclass(frozen=True)
class Lengths:
    """Tokens of each pair: prompt, chosen, rejected."""

    name: str
    of_pair: list[tuple[int, int, int]]

    @property
    def tokens(self) -> int:
        """Of all sequences, prompts counted with both responses."""
        return sum(2 * prompt + chosen + rejected for prompt, chosen, rejected in self.of_pair)


def drawn(pairs: int, *, seed: int = 0) -> Lengths:
    """Log-normal, as UltraFeedback's are: medians of 100 (prompt) and 270 (response) tokens, sigma 0.9 and 0.7,
    cut at 512 and 2048. A pair's responses correlate by one half."""
    draw = np.random.default_rng(seed)
    shared, own = draw.normal(size=(pairs, 1)), draw.normal(size=(pairs, 2))
    prompts = np.exp(np.log(100) + 0.9 * draw.normal(size=pairs)).clip(4, 512)
    responses = np.exp(np.log(270) + 0.7 * (shared + own) / 2**0.5).clip(4, 2048)
    rows = np.column_stack([prompts, responses]).astype(int)
    return Lengths("log-normal", [(int(p), int(c), int(r)) for p, c, r in rows])


def of_answers(first: Path, second: Path, questions: Path) -> Lengths:
    """Arena-Hard: each question with its answer in either file."""

    def tokens(text: str) -> int:
        return max(1, len(text.encode()) // BYTES_PER_TOKEN)

    def records(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def answers(path: Path) -> dict[str, int]:
        """By question, which an answer carries as its first message."""
        made = [record["messages"] for record in records(path)]
        return {user["content"]: tokens(answer["content"]["answer"]) for user, answer in made}

    chosen, rejected = answers(first), answers(second)
    asked = [record["prompt"] for record in records(questions)]
    pairs = [(tokens(q), chosen[q], rejected[q]) for q in asked if q in chosen and q in rejected]
    return Lengths("Arena-Hard answers", pairs)


def table(lengths: Lengths) -> PairTable:
    """Pairs of these lengths; what their tokens are does not matter."""
    count = len(lengths.of_pair)
    names = ("prompt_token_ids", "chosen_token_ids", "rejected_token_ids")
    columns: dict[str, pa.Array] = {
        name: pa.array([np.ones(row[side], np.int32) for row in lengths.of_pair], PAIRS.schema.field(name).type)
        for side, name in enumerate(names)
    }
    for column in PAIRS.schema:
        if column.name not in columns:
            is_text = pa.types.is_string(column.type)
            values = [str(number) for number in range(count)] if is_text else np.full(count, 0.5)
            columns[column.name] = pa.array(values, column.type)
    return PairTable(PAIRS.of(columns), None)


def padded_slots(lengths: Lengths, *, batch: int = PADDED_PAIRS, seed: int = 0) -> int:
    """Batches of pairs in random order, every row padded to the batch's longest."""
    order = np.random.default_rng(seed).permutation(len(lengths.of_pair))
    rows = [max(prompt + chosen, prompt + rejected) for prompt, chosen, rejected in lengths.of_pair]
    batches = (order[start : start + batch] for start in range(0, len(order), batch))
    return sum(2 * len(part) * max(rows[pair] for pair in part) for part in batches)


@dataclass(frozen=True)
class Packed:
    slots: int
    """Of all rows of all replicas."""
    rows: int
    waiting: int
    """Rows that a replica is idle for while another is not done, over all steps."""


def packed(pairs: PairTable, *, replicas: int, budget: int, shared: bool = False, seed: int = 0) -> Packed:
    """What `MicrobatchPlan` lays out for one epoch of global batches of 64; `shared`: each prompt once a pair."""
    train = Train(global_batch_size=64, packing=True, pack_tokens=budget, share_prompt=shared)
    batches = shuffled(len(pairs), global_batch_size=train.global_batch_size, epochs=1, seed=seed)
    plan = MicrobatchPlan(pairs, batches, train, Parallel(data=replicas))
    slots = rows = waiting = 0
    for step in range(len(batches)):
        counts = [len(plan.rows_of(step, replica)) for replica in range(replicas)]
        slots += sum(counts) * plan.row_length(step)
        rows += sum(counts)
        waiting += max(counts) * replicas - sum(counts)
    return Packed(slots, rows, waiting)


def run(sources: Sequence[Lengths]) -> Benchmark:
    """Count the slots of every source of lengths."""
    rows: list[tuple[Cell, ...]] = []
    goals = []
    for lengths in sources:
        pairs, padded = table(lengths), padded_slots(lengths)
        rows.append((lengths.name, f"padded, {PADDED_PAIRS} pairs", 1, padded, lengths.tokens / padded, 1.0, None))
        for replicas in (1, 8):
            for budget, shared in ((8192, False), (16384, False), (8192, True)):
                start = time.perf_counter()
                found = packed(pairs, replicas=replicas, budget=budget, shared=shared)
                took = time.perf_counter() - start
                fill, gain = lengths.tokens / found.slots, padded / found.slots
                layout = f"packed, {budget:,}{', prompts shared' if shared else ''}"
                rows.append((lengths.name, layout, replicas, found.slots, fill, gain, took))
                if budget == 8192 and not shared:
                    what = f"{lengths.name}, {counted(replicas, 'replica')}: fewer slots"
                    goals.append(Goal(what, ">= 1.7x", f"{gain:.2f}x", gain >= 1.7))
    return Benchmark(
        name="packing",
        claim="Packing: token slots of an epoch",
        setting=(
            f"Global batches of 64 pairs. Padded: batches of {PADDED_PAIRS} pairs in random order, rows padded to the "
            "batch's longest."
        ),
        columns=("lengths", "layout", "replicas", "slots", "tokens / slots", "fewer slots", "planning, seconds"),
        rows=rows,
        goals=goals,
        notes=[
            *map(_described, sources),
            "Rows of a step have one length on all replicas, and every replica runs equally many.",
            f"Arena-Hard's lengths are bytes / {BYTES_PER_TOKEN}.",
            "Tokens count a prompt with both of its responses, so with shared prompts there are more than slots.",
        ],
    )


def _described(lengths: Lengths) -> str:
    medians = np.median(np.array(lengths.of_pair), axis=0).astype(int)
    return (
        f"{lengths.name}: {len(lengths.of_pair):,} pairs, median tokens {medians[0]} (prompt), {medians[1]} and "
        f"{medians[2]} (responses)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4096, help="pairs of drawn lengths")
    parser.add_argument("--data", type=Path, help="directory with arena_hard_v0.1_{questions,answers_*}.jsonl")
    options = parser.parse_args()
    sources = [drawn(options.pairs)]
    if options.data is not None:
        first, second, *_ = sorted(options.data.glob("arena_hard_v0.1_answers_*.jsonl"))
        sources.append(of_answers(first, second, options.data / "arena_hard_v0.1_questions.jsonl"))
    run(sources).with_kept([lengths.name for lengths in sources]).publish()


if __name__ == "__main__":
    main()
