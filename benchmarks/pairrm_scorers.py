"""PairRM's two scorers on the same prompts: ours and llm-blender's own loop, with what each of them took."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.resident import measured
from nemo_sspo.config.oracles import PairRMOracle, Precision
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.pairrm.blender import blender_logits, load_blender
from nemo_sspo.oracle.pairrm.model import PairRM
from nemo_sspo.oracle.protocol import Row

Prompt = tuple[str, tuple[str, ...]]
"""A prompt and its responses, of one number in all prompts."""


@dataclass
class Cost:
    """What a scorer took for some rows."""

    scorer: str
    seconds: float
    """Of the processor."""
    peak_mib: float
    tokens: int
    slots: int
    """Tokens computed, padding counted."""
    logits: np.ndarray = field(repr=False)

    @property
    def padding(self) -> float:
        """Share of the slots that hold no token."""
        return 1 - self.tokens / self.slots


def rows_of(prompts: Sequence[Prompt]) -> list[Row]:
    """All ordered pairs of every prompt's responses."""
    return [Row(prompt, *pair) for prompt, texts in prompts for pair in itertools.permutations(texts, 2)]


def in_rows(logits_NKK: np.ndarray) -> np.ndarray:
    """The logits of `rows_of`, in its order, out of K x K matrices."""
    first, second = zip(*itertools.permutations(range(logits_NKK.shape[1]), 2), strict=True)
    return logits_NKK[:, first, second].ravel()


def ours(checkpoint: Path, prompts: Sequence[Prompt], precision: Precision = "float32") -> Cost:
    """Score with nemo-sspo's scorer."""
    oracle = PairRM(PairRMOracle(path=str(checkpoint), precision=precision), "cpu")
    rows = rows_of(prompts)
    oracle.compare([Row("a", "b", "c")])  # what is loaded at the first use
    name = "ours" if precision == "float32" else f"ours, {precision}"
    return _cost(name, oracle._model, lambda: oracle.compare(rows).logits_R)


def row_lengths(checkpoint: Path, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens of every distinct row."""
    encoder = PairRM(PairRMOracle(path=str(checkpoint)), "cpu")._encoder
    return [row.length for row in encoder.encode(Deduplicated(rows_of(prompts)).items)]


def llm_blenders(checkpoint: Path, prompts: Sequence[Prompt], batch_size: int = 1) -> Cost:
    """Score with llm-blender's loop over the pairs of a batch of prompts."""
    blender: Any = load_blender(checkpoint)
    texts = [prompt for prompt, _ in prompts], [answers for _, answers in prompts]
    blender_logits(blender, ["a"], [["b"] * len(prompts[0][1])])
    name = "llm-blender" if batch_size == 1 else f"llm-blender, batches of {batch_size}"
    score = partial(blender_logits, blender, *texts, batch_size)
    return _cost(name, blender.ranker.pretrained_model, lambda: in_rows(score()))


def _cost(name: str, model: torch.nn.Module, score: Callable[[], np.ndarray]) -> Cost:
    """Run a scorer, and watch the attention masks that its model is given."""
    seen = np.zeros(2, dtype=np.int64)

    def count(_: Any, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        mask = named["attention_mask"] if "attention_mask" in named else positional[1]
        seen[:] += int(mask.sum()), mask.numel()

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    usage, logits = measured(score)
    hook.remove()
    return Cost(name, usage.cpu_seconds, usage.peak_mib, int(seen[0]), int(seen[1]), logits)
