"""Scoring with a PairRM of the published size on a GPU: ours in bf16, and llm-blender's own loop in fp16, bf16, fp32.

Random weights, real texts; with `--texts made` texts are drawn, for a machine without the Arena-Hard files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.arena_hard import DATA, K, prompts_with_answers, with_noisy_copies
from benchmarks.gpu.place import Place, parser, place_of
from benchmarks.pairrm_scorers import Prompt, in_rows, rows_of
from benchmarks.random_pairrm import SIZES, folder_for_checkpoints, make_checkpoint, train_tokenizer
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.oracle.pairrm.blender import blender_logits, load_blender
from nemo_sspo.oracle.pairrm.model import PairRM

Scorer = Callable[[], np.ndarray]

SIZE, SMALL_SIZE = "DeBERTa-v3-large", "toy"
PROMPTS = 32
REPEATS = 3
WANTED = 5.0
TRUTH = "llm-blender, fp32"
_TOKENIZER_TEXTS = 60


def texts_of(data: Path, count: int) -> list[Prompt]:
    """Real prompts with two real answers and three noisy copies."""
    found = prompts_with_answers(data, count)
    return [(prompt, with_noisy_copies(answers, seed)) for seed, (prompt, answers) in enumerate(found)]


def made_texts(count: int, words: int) -> list[Prompt]:
    """Drawn texts of up to so many words, K different ones to a prompt."""
    draw = random.Random(0)

    def text(longest: int) -> str:
        return " ".join(f"w{draw.randrange(900)}" for _ in range(draw.randint(longest // 2, longest)))

    return [(text(words // 4), tuple(text(words) for _ in range(K))) for _ in range(count)]


def scorers(checkpoint: Path, prompts: Sequence[Prompt], device: str) -> dict[str, Scorer]:
    """What is compared; llm-blender's fp16 is what it takes by itself on a GPU."""
    rows = rows_of(prompts)
    oracle = PairRM(PairRMOracle(path=str(checkpoint), precision="bfloat16"), device)
    found: dict[str, Scorer] = {"ours, bf16": lambda: oracle.compare(rows).logits_R}
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16} | ({"fp16": torch.float16} if device == "cuda" else {})
    for name, dtype in kinds.items():
        blender = load_blender(checkpoint, device)
        blender.ranker.to(dtype)
        found[f"llm-blender, {name}"] = partial(_blender, blender, prompts)
    return found


def _blender(blender: Any, prompts: Sequence[Prompt]) -> np.ndarray:
    return in_rows(blender_logits(blender, [prompt for prompt, _ in prompts], [answers for _, answers in prompts]))


def run(place: Place, prompts: Sequence[Prompt]) -> Benchmark:
    """Time every scorer on all ordered pairs of the prompts."""
    size = SMALL_SIZE if place.small else SIZE
    words = [text for prompt, answers in prompts for text in (prompt, *answers)][:_TOKENIZER_TEXTS]
    with folder_for_checkpoints() as folder:
        tokenizer = train_tokenizer(words, vocabulary=400 if place.small else 4000)
        checkpoint = make_checkpoint(Path(folder) / "pairrm", SIZES[size], tokenizer)
        runs = scorers(checkpoint, prompts, place.device)
        logits = {name: score() for name, score in runs.items()}
        times = measure.seconds(runs, repeats=1 if place.small else REPEATS)
        peaks = {name: measure.peak_bytes(score) for name, score in runs.items()}
    pairs = len(prompts) * K * (K - 1) / 2
    rows: list[tuple[Cell, ...]] = []
    for name, seconds in times.items():
        error = float(np.abs(logits[name] - logits[TRUTH]).max())
        rows.append((name, pairs / seconds, times[TRUTH] / seconds, peaks[name] / 2**20, error))
    fastest = min((name for name in times if name.startswith("llm-blender")), key=times.__getitem__)
    ratio = times[fastest] / times["ours, bf16"]
    is_met = ratio >= WANTED if place.counts else None
    return Benchmark(
        name="gpu.pairrm",
        claim="Scoring with PairRM",
        setting=(
            f"{size}, random weights; {len(prompts)} prompts of K = {K} responses, all ordered pairs; tokenization "
            "included. Peak beyond the weights."
        ),
        columns=("scorer", "pairs/s", f"of {TRUTH}", "peak MiB", "largest difference of a logit"),
        rows=rows,
        goals=[Goal(f"pairs/s, of {fastest}", f">= {WANTED:g} x", f"{ratio:.2f} x", is_met)],
    )


def main() -> None:
    options_ = parser(__doc__)
    options_.add_argument("--data", type=Path, default=DATA, help="directory with the Arena-Hard files")
    options_.add_argument("--texts", choices=["real", "made"], default="real")
    options_.add_argument("--prompts", type=int, default=PROMPTS, help="of 20 rows each")
    options = options_.parse_args()
    place = place_of(options)
    count = 2 if place.small else options.prompts
    made = options.texts == "made"
    place.publish(run(place, made_texts(count, 20 if place.small else 600) if made else texts_of(options.data, count)))


if __name__ == "__main__":
    main()
