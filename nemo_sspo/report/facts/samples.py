"""Some prompts of every iteration with all their responses, scores and targets, to read through.

A prompt's id is the hash of its content, so those with the smallest ids are a fair sample that never changes.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.published import PublishedStep
from nemo_sspo.artifacts.shard import join_pairs, join_scores, read_shard
from nemo_sspo.artifacts.tables import DROPPED, PAIRS, ROLLOUTS
from nemo_sspo.objective.win_rates import mean_scores, symmetrize, win_probabilities, win_rates
from nemo_sspo.report.facts.record import RunRecord

TEXT_CHARACTERS = 2000
"""Longer texts are cut: three iterations of 100 prompts with 5 responses of 2,048 tokens would be 12 MB."""

_COLUMNS = ("prompt_id", "prompt")
_RESPONSE_FIELDS = ("response_id", "text", "finish_reason")
_PAIR_NUMBERS = ("similarity", "p_chosen", "p_rejected", "target_chosen", "target_rejected")
_PAIR_COLUMNS = ("prompt_id", "chosen_id", "rejected_id", *_PAIR_NUMBERS)


@dataclass(frozen=True)
class SampleResponse:
    """One of a prompt's K responses."""

    text: str
    cut: int
    """Characters left out at the end."""
    finished: bool
    score: float | None
    """Mean symmetrized logit against the K responses; None before scoring."""
    win_rate: float | None
    """Mean probability to beat one of the K responses, before the gate."""
    role: str
    """``chosen``, ``rejected`` or empty."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt with everything that is known of it."""

    iteration: int
    prompt_id: str
    text: str
    cut: int
    responses: list[SampleResponse]
    similarity: float | None
    """Of the pair; None without a pair."""
    p_chosen: float | None
    p_rejected: float | None
    target_chosen: float | None
    target_rejected: float | None
    dropped: str
    """Why it has no pair; empty when it has one, or before pairs are built."""

    def as_data(self) -> dict[str, Any]:
        """For the page's script."""
        return asdict(self)


def sample_prompts(run: RunRecord, iteration: int, count: int) -> list[SamplePrompt]:
    """At most `count` prompts of an iteration, by id."""
    wanted = pa.array(_sampled_ids(run, iteration, count), pa.string())
    if not len(wanted):
        return []
    pairs = run.table("build_pairs", iteration, PAIRS, _PAIR_COLUMNS, wanted)
    dropped = run.table("build_pairs", iteration, DROPPED, ("prompt_id", "reason"), wanted).to_pylist()
    reasons = {row["prompt_id"]: row["reason"] for row in dropped}
    found = [prompt for step in run.of("rollout", iteration) for prompt in _of_shard(run, step, wanted, pairs, reasons)]
    return sorted(found, key=lambda prompt: prompt.prompt_id)


def _sampled_ids(run: RunRecord, iteration: int, count: int) -> list[str]:
    """The smallest prompt ids over all shards."""
    ids: list[str] = []
    for step in run.of("rollout", iteration):
        parts = ROLLOUTS.batches(step.path, ["prompt_id"])
        of_shard = chain.from_iterable(part["prompt_id"].to_pylist() for part in parts)
        ids = heapq.nsmallest(count, [*ids, *run.read(partial(heapq.nsmallest, count, of_shard), [])])
    return ids


def _of_shard(
    run: RunRecord, rollout: PublishedStep, wanted: pa.Array, pairs: pa.Table, reasons: Mapping[str, str]
) -> Iterator[SamplePrompt]:
    """The wanted prompts of a shard. Scores and pairs that are missing, or of other responses, are left out."""
    iteration = rollout.manifest.iteration
    shard = run.read(lambda: read_shard(rollout.path, _COLUMNS, _RESPONSE_FIELDS, wanted), None)
    if shard is None or not shard.prompts:
        return
    score = [step for step in run.of("score", iteration) if step.manifest.shard == rollout.manifest.shard]
    logits_NKK = run.read(lambda: join_scores(shard, score[0].path), None) if score else None
    scores = None if logits_NKK is None else _scores(logits_NKK, run.settings.get("pairs", {}))
    paired = run.read(lambda: join_pairs(shard, pairs), join_pairs(shard, pairs.slice(0, 0)))
    for place, (prompt, responses) in enumerate(shard.listed()):
        roles = dict(zip(paired.places_N2[place].tolist(), ("chosen", "rejected"), strict=True))
        text, cut = _cut(prompt["prompt"])
        pair = paired.rows[place] or dict.fromkeys(_PAIR_NUMBERS)
        yield SamplePrompt(
            iteration=iteration,
            prompt_id=prompt["prompt_id"],
            text=text,
            cut=cut,
            responses=[
                _response(response, None if scores is None else scores[place, k], roles.get(k, ""))
                for k, response in enumerate(responses)
            ],
            dropped=reasons.get(prompt["prompt_id"], ""),
            **{name: None if (value := pair[name]) is None else round(value, 4) for name in _PAIR_NUMBERS},
        )


def _response(response: Mapping[str, Any], scores_2: NDArray[np.float64] | None, role: str) -> SampleResponse:
    text, cut = _cut(response["text"])
    score, win_rate = (None, None) if scores_2 is None else (round(float(value), 4) for value in scores_2)
    return SampleResponse(text, cut, response["finish_reason"] != "length", score, win_rate, role)


def _scores(logits_NKK: NDArray[np.float64], settings: Mapping[str, Any]) -> NDArray[np.float64]:
    """Score and win rate of every response, [N, K, 2], as build_pairs computes them."""
    how = settings.get("symmetrize", "half")
    p_NKK = win_probabilities(logits_NKK, symmetrization=how, estimator=settings.get("estimator", "pairwise"))
    wins_NK = win_rates(p_NKK, include_self=settings.get("include_self", True))
    return np.stack([mean_scores(symmetrize(logits_NKK, how)), wins_NK], axis=-1)


def _cut(text: str) -> tuple[str, int]:
    return text[:TEXT_CHARACTERS], max(0, len(text) - TEXT_CHARACTERS)
