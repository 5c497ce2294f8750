"""Some prompts of every iteration with all their responses, scores and targets, to read through.

A prompt's id is the hash of its content, so those with the smallest ids are a fair sample that never changes.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nemo_sspo.artifacts.tables import DROPPED, PAIRS, ROLLOUTS, SCORES
from nemo_sspo.objective.win_rates import mean_scores, symmetrize, win_probabilities, win_rates
from nemo_sspo.report.facts.record import RunRecord

TEXT_CHARACTERS = 2000
"""Longer texts are cut: three iterations of 100 prompts with 5 responses of 2,048 tokens would be 12 MB."""

_RESPONSE = "responses.list.element."
_ROLLOUT_COLUMNS = (
    "prompt_id",
    "prompt",
    *(f"{_RESPONSE}{name}" for name in ("response_id", "text", "finish_reason")),
)
_PAIR_COLUMNS = (
    "prompt_id",
    "chosen_id",
    "rejected_id",
    "p_chosen",
    "p_rejected",
    "similarity",
    "target_chosen",
    "target_rejected",
)


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
    ids = _sampled_ids(run, iteration, count)
    if not ids:
        return []
    wanted = pa.array(ids)
    scores = {
        row["prompt_id"]: row for row in _rows(run, "score", iteration, SCORES.file, ("prompt_id", "logits"), wanted)
    }
    pairs = {row["prompt_id"]: row for row in _rows(run, "build_pairs", iteration, PAIRS.file, _PAIR_COLUMNS, wanted)}
    dropped = _rows(run, "build_pairs", iteration, DROPPED.file, ("prompt_id", "reason"), wanted)
    reasons = {row["prompt_id"]: row["reason"] for row in dropped}
    settings = run.settings.get("pairs", {})
    prompts = []
    for row in _rows(run, "rollout", iteration, ROLLOUTS.file, _ROLLOUT_COLUMNS, wanted):
        prompt_id = row["prompt_id"]
        logits = scores[prompt_id]["logits"] if prompt_id in scores else None
        prompts.append(_prompt(iteration, row, logits, pairs.get(prompt_id, {}), reasons.get(prompt_id, ""), settings))
    return sorted(prompts, key=lambda prompt: prompt.prompt_id)


def _sampled_ids(run: RunRecord, iteration: int, count: int) -> list[str]:
    """The smallest prompt ids over all shards."""
    ids = (
        prompt_id
        for step in run.of("rollout", iteration)
        for batch in run.batches(step.path / ROLLOUTS.file, ["prompt_id"])
        for prompt_id in batch.column(0).to_pylist()
    )
    return heapq.nsmallest(count, ids)


def _rows(
    run: RunRecord, stage: str, iteration: int, file: str, columns: Sequence[str], wanted: pa.Array
) -> Iterator[dict[str, Any]]:
    """Rows of a stage's table, of all shards, whose prompt is wanted."""
    for step in run.of(stage, iteration):
        for batch in run.batches(step.path / file, columns):
            mask = pc.is_in(batch.column(batch.schema.get_field_index("prompt_id")), value_set=wanted)
            yield from batch.filter(mask).to_pylist()


def _prompt(
    iteration: int, row: dict, logits: list | None, pair: dict, reason: str, settings: dict[str, Any]
) -> SamplePrompt:
    scores, wins = _scored(logits, settings) if logits else (None, None)
    roles = {pair.get("chosen_id"): "chosen", pair.get("rejected_id"): "rejected"} if pair else {}
    responses = []
    for position, response in enumerate(row["responses"]):
        text, cut = _cut(response["text"])
        responses.append(
            SampleResponse(
                text=text,
                cut=cut,
                finished=response["finish_reason"] != "length",
                score=None if scores is None else round(float(scores[position]), 4),
                win_rate=None if wins is None else round(float(wins[position]), 4),
                role=roles.pop(response["response_id"], ""),  # equal responses share an id: the first has the role
            )
        )
    text, cut = _cut(row["prompt"])
    names = ("similarity", "p_chosen", "p_rejected", "target_chosen", "target_rejected")
    numbers = {name: round(pair[name], 4) if name in pair else None for name in names}
    return SamplePrompt(iteration, row["prompt_id"], text, cut, responses, dropped=reason, **numbers)


def _scored(logits: list[list[float]], settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and win rates of one prompt's responses, [K] each, as build_pairs computes them."""
    logits_1KK = np.asarray([logits], dtype=np.float64)
    how = settings.get("symmetrize", "half")
    p_1KK = win_probabilities(logits_1KK, symmetrization=how, estimator=settings.get("estimator", "pairwise"))
    wins_1K = win_rates(p_1KK, include_self=settings.get("include_self", True))
    return mean_scores(symmetrize(logits_1KK, how))[0], wins_1K[0]


def _cut(text: str) -> tuple[str, int]:
    return text[:TEXT_CHARACTERS], max(0, len(text) - TEXT_CHARACTERS)
