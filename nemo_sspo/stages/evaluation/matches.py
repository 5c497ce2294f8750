"""Policies against each other on prompts that neither was trained on: their responses, the rows that an oracle judges,
win rates and intervals. Shared by evaluation and selection.

Legend: N prompts, M pairs of responses to a prompt, R rows, S resamples of the prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.config.stages import Judging
from nemo_sspo.objective.length_control import bounded_difference, win_at_equal_length
from nemo_sspo.objective.win_rates import win_of_first
from nemo_sspo.oracle.protocol import PreferenceOracle, Row
from nemo_sspo.stages.evaluation.bootstrap import Statistic, bootstrap
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.judged_text import reader
from nemo_sspo.stages.sampling.judging import both_orders, refuse_all_ties
from nemo_sspo.stages.sampling.score import refuse_not_finite


class Resampling(TypedDict):
    """How intervals are made."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A policy's responses to prompts that are not trained on, by prompt id."""

    prompts: dict[str, dict[str, Any]]
    """Text and messages."""
    responses: dict[str, list[str]]
    tokens: dict[str, float]
    """Mean tokens of a response, by prompt id."""
    mean_tokens: float
    distinct: float
    """Share of a prompt's responses that differ from each other, over all prompts."""
    unfinished: int


Match = tuple[HeldOut, HeldOut]
"""The policy whose win rate is measured, and its opponent; both have answered the same prompts."""


def read_held_out(artifact: Artifact, samples: int, judging: Judging) -> HeldOut:
    """Read the first `samples` responses to each prompt of a held-out rollouts artifact."""
    table = ROLLOUTS.read(artifact.path)
    rows = table.select(["prompt_id", "prompt", "messages", "responses"]).to_pylist()
    rows = [row | {"responses": row["responses"][:samples]} for row in rows]
    responses = [response for row in rows for response in row["responses"]]
    tokens = {row["prompt_id"]: fmean(len(response["token_ids"]) for response in row["responses"]) for row in rows}
    read = reader(judging, artifact)
    texts = {row["prompt_id"]: [read(response["text"]) for response in row["responses"]] for row in rows}
    return HeldOut(
        prompts={row["prompt_id"]: {"prompt": row["prompt"], "messages": row["messages"]} for row in rows},
        responses=texts,
        tokens=tokens,
        mean_tokens=sum(len(response["token_ids"]) for response in responses) / len(responses),
        distinct=sum(len(set(group)) for group in texts.values()) / len(responses),
        unfinished=sum(response["finish_reason"] == "length" for response in responses),
    )


def match_rows(prompt_ids: Sequence[str], matches: Sequence[Match]) -> tuple[list[Row], list[slice]]:
    """Rows of every match in turn, both orders side by side; the slice of each match."""
    rows: list[Row] = []
    spans = []
    for new, opponent in matches:
        start = len(rows)
        for prompt_id in prompt_ids:
            for ours in new.responses[prompt_id]:
                for theirs in opponent.responses[prompt_id]:
                    rows += both_orders(new.prompts[prompt_id], ours, theirs)
        spans.append(slice(start, len(rows)))
    return rows, spans


def judged(
    context: StageContext, oracle: PreferenceOracle, prompt_ids: Sequence[str], rows: list[Row], spans: list[slice]
) -> tuple[list[NDArray[np.float64]], Mapping[str, int]]:
    """Win rates [N] of every match, and what the oracle counted.

    Raises:
        UserError: a logit is not finite, or a judge calls all comparisons ties: every win rate would be 1/2.
    """
    preferences = oracle.compare(rows, lambda done: context.progress.update(done, len(rows), unit="comparisons"))
    refuse_all_ties(context, preferences.facts)
    logits = preferences.logits_R.astype(np.float64)
    wins = [match_win_rates(logits[span].reshape(len(prompt_ids), -1, 2), prompt_ids) for span in spans]
    return wins, preferences.facts


def match_win_rates(logits_NM2: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.float64]:
    """Win rate [N] of each prompt; ``logits[n, m]`` is one pair of responses, new shown first and new shown second."""
    refuse_not_finite(logits_NM2, prompt_ids)
    return win_of_first(logits_NM2).mean(axis=1)


def longer(new: HeldOut, opponent: HeldOut, prompt_ids: Sequence[str]) -> NDArray[np.float64]:
    """By how many tokens the new policy's responses to each prompt [N] are longer, on average."""
    return np.array([new.tokens[prompt_id] - opponent.tokens[prompt_id] for prompt_id in prompt_ids])


def resampling(context: StageContext) -> Resampling:
    """As `evaluation` asks for, with the step's own seed."""
    settings = context.experiment.evaluation
    return {"samples": settings.bootstrap_samples, "confidence": settings.confidence, "seed": context.seed}


def at_equal_length(wins_N: NDArray[np.float64], longer_N: NDArray[np.float64]) -> Statistic:
    """The length-controlled win rate as a statistic of rows."""
    difference_N = bounded_difference(longer_N)
    return lambda rows_SN: win_at_equal_length(wins_N[rows_SN], difference_N[rows_SN])


def length_controlled(wins_N: NDArray[np.float64], longer_N: NDArray[np.float64], how: Resampling) -> Interval:
    """The win rate at equal length, with its interval."""
    return bootstrap(at_equal_length(wins_N, longer_N), len(wins_N), **how)
