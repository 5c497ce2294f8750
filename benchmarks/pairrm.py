"""Scoring real answers with PairRM: ours and llm-blender's own loop, on one checkpoint and one set of texts."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arena_hard import DATA, K, prompts_with_answers, with_noisy_copies
from benchmarks.random_pairrm import SIZES, make_checkpoint, train_tokenizer
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.config.variants import PairRMOracle
from nemo_sspo.oracle.batching import pack
from nemo_sspo.oracle.blender import blender_logits, load_blender
from nemo_sspo.oracle.pairrm import PairRM
from nemo_sspo.oracle.protocol import Row

ORDERS = list(itertools.permutations(range(K), 2))
PROMPTS = {"toy": 10, "DeBERTa-v3-xsmall": 2, "DeBERTa-v3-base": 1}
"""Prompts of each size by default: 20 rows each."""
WANTED = 5.0
_TOKENIZER_TEXTS = 60

Prompt = tuple[str, tuple[str, ...]]


@dataclass
class Cost:
    """What a scorer took for some rows."""

    cpu_seconds: float
    peak_mib: float
    padding: float
    """Padding tokens over all tokens computed."""
    logits: np.ndarray = field(repr=False)


def measured(run: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Processor seconds, growth of the peak resident memory in MiB, and the result."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started = _resident("VmRSS"), time.process_time()
    result = run()
    return time.process_time() - started, (_resident("VmHWM") - before) / 1024, result


def _resident(name: str) -> int:
    """KiB from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def rows_of(prompts: Sequence[Prompt]) -> list[Row]:
    """All ordered pairs of every prompt's responses."""
    return [Row(prompt, texts[i], texts[j]) for prompt, texts in prompts for i, j in ORDERS]


def ours(oracle: PairRM, prompts: Sequence[Prompt]) -> Cost:
    """Score with nemo-sspo's scorer."""
    rows = rows_of(prompts)
    seconds, peak, logits = measured(lambda: oracle.compare(rows).logits_R)
    lengths = np.array([row.length for row in oracle._encoder.encode(rows)])
    slots = sum(len(batch) * int(lengths[batch].max()) for batch in pack(lengths, oracle._batch_tokens))
    return Cost(seconds, peak, 1 - lengths.sum() / slots, logits)


def llm_blenders(blender: Any, prompts: Sequence[Prompt]) -> Cost:
    """Score with llm-blender's loop over the pairs of one prompt at a time."""
    seen = np.zeros(2)

    def count(_module: Any, _positional: Any, named: dict[str, Any]) -> None:
        seen[:] += named["attention_mask"].sum().item(), named["attention_mask"].numel()

    hook = blender.ranker.pretrained_model.register_forward_pre_hook(count, with_kwargs=True)
    texts = [prompt for prompt, _ in prompts], [answers for _, answers in prompts]
    seconds, peak, logits_NKK = measured(lambda: blender_logits(blender, *texts))
    hook.remove()
    first, second = (list(side) for side in zip(*ORDERS, strict=True))
    return Cost(seconds, peak, 1 - seen[0] / seen[1], logits_NKK[:, first, second].ravel())


def compare(name: str, prompts: Sequence[Prompt], checkpoint: Path) -> tuple[Cost, Cost]:
    """(ours, llm-blender's) at one size, each after a prompt that is not counted."""
    oracle = PairRM(PairRMOracle(path=str(checkpoint)))
    blender = load_blender(checkpoint)
    warm_up = [(prompts[0][0], prompts[0][1][:1] * K)]
    ours(oracle, warm_up)
    llm_blenders(blender, [("a", ("b",) * K)])
    return ours(oracle, prompts), llm_blenders(blender, prompts)


def run(data: Path, sizes: dict[str, int], memory_prompts: int) -> Benchmark:
    """Measure every size, and memory at one and ten times the rows."""
    texts = [
        text for prompt, answers in prompts_with_answers(data, _TOKENIZER_TEXTS // 3) for text in (prompt, *answers)
    ]
    tokenizer = train_tokenizer(texts, vocabulary=4000)
    rows: list[tuple[Cell, ...]] = []
    goals, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, count in sizes.items():
            prompts = _with_copies(data, count)
            costs = compare(name, prompts, make_checkpoint(Path(folder) / name, SIZES[name], tokenizer))
            pairs = count * K * (K - 1)
            for scorer, cost in zip(("ours", "llm-blender"), costs, strict=True):
                rates = pairs / cost.cpu_seconds, pairs / 2 / cost.cpu_seconds
                rows.append((name, scorer, pairs, *rates, f"{cost.padding:.2%}", cost.peak_mib))
            worst = max(worst, float(np.abs(costs[0].logits - costs[1].logits).max()))
            ratio = costs[1].cpu_seconds / costs[0].cpu_seconds
            goals.append(Goal(f"rows a second, {name}", f">= {WANTED:g} x", f"{ratio:.2f} x", ratio >= WANTED))
        oracle = PairRM(PairRMOracle(path=str(Path(folder) / next(iter(sizes)) / "checkpoint")))
        peaks = [ours(oracle, _with_copies(data, memory_prompts * times)).peak_mib for times in (1, 10)]
    goals.append(Goal("error between the two", "< 1e-5", f"{worst:.1e}", worst < 1e-5))
    flat = f"{peaks[0]:.0f} MiB -> {peaks[1]:.0f} MiB"
    goals.append(Goal("peak memory, 1 x -> 10 x the rows", "flat (< 1.2 x)", flat, peaks[1] < 1.2 * peaks[0]))
    return Benchmark(
        name="pairrm",
        claim="Scoring with PairRM, all ordered pairs of K = 5 responses",
        setting=(
            "Arena-Hard v0.1: real prompts, two real answers, three copies without a tenth of their words; PairRM's "
            "limits of 1224 and 412 tokens. PairRM's architecture with random weights, fp32, one thread; seconds are "
            "of the processor, and memory is the growth of the resident peak."
        ),
        columns=("size", "scorer", "rows", "rows/s", "pairs/s", "padding", "peak MiB"),
        rows=rows,
        goals=goals,
        notes=[
            "llm-blender pads every text to PairRM's limits, then cuts its rows of one prompt to their own length; ours "
            "packs rows of like length, computes equal rows once, the last layer at three tokens only, and attention "
            "in pieces that stay in cache.",
            "Long rows are compute-bound: at the base size three quarters of the time is spent in matrix products that "
            "both must do, so that their ratio is bounded on a processor.",
        ],
    )


def _with_copies(data: Path, count: int) -> list[Prompt]:
    found = prompts_with_answers(data, count)
    return [(prompt, with_noisy_copies(answers, seed)) for seed, (prompt, answers) in enumerate(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="directory with the Arena-Hard files")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(PROMPTS))
    parser.add_argument("--prompts", type=int, help="prompts of every size (20 rows each; 500 is all)")
    parser.add_argument("--memory-prompts", type=int, default=2, help="prompts of the smaller memory measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {name: options.prompts or PROMPTS.get(name, 1) for name in options.sizes}
    run(options.data, sizes, options.memory_prompts).publish()


if __name__ == "__main__":
    main()
