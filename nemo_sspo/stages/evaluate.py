"""Oracle win rate of an iteration's policy against the previous one and the base, on held-out prompts.

A prompt's win rate is the mean over pairs (new response, other's response) of P(new beats other), with both orders of
presentation combined (`half`). Prompts are independent, the responses to one prompt are not: the interval resamples
prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import EVALUATION as EVALUATION_FILE
from nemo_sspo.artifacts.layout import ROLLOUTS as ROLLOUTS_FILE
from nemo_sspo.artifacts.schema import EVALUATION, ROLLOUTS
from nemo_sspo.artifacts.store import Artifact, read_table, write_table
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.oracle.protocol import Row
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.bootstrap import bootstrap_mean
from nemo_sspo.stages.context import StageContext
from nemo_sspo.stages.judging import both_orders, workplace
from nemo_sspo.stages.score import refuse_not_finite


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A policy's responses to the held-out prompts, by prompt id."""

    prompts: dict[str, dict[str, Any]]
    """Text and messages."""
    responses: dict[str, list[str]]
    mean_tokens: float
    distinct: float
    """Share of a prompt's responses that differ from each other, over all prompts."""
    unfinished: int


def run(context: StageContext) -> None:
    """Publish evaluation.parquet and the win rates with their intervals as counts."""
    policies = {name: read_held_out(context.input(name)) for name in ("new", "previous", "base")}
    new = policies["new"]
    opponents = {name: policies[name] for name in ("previous", "base")}
    for name, opponent in opponents.items():
        if opponent.prompts != new.prompts:
            raise UserError(f"evaluate: the held-out prompts of the {name} policy are not the new policy's")
    prompt_ids = sorted(new.prompts)

    rows, spans = _rows(prompt_ids, new, list(opponents.values()))
    context.progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    oracle = load_oracle(context.experiment.oracle, workplace(context))
    preferences = oracle.compare(rows, lambda done: context.progress.update(done, len(rows), unit="comparisons"))
    logits = preferences.logits_R.astype(np.float64)
    context.output.counts |= preferences.facts

    settings, wins = context.experiment.evaluation, {}
    for name, span in zip(opponents, spans, strict=True):
        wins[name] = win_rates(logits[span].reshape(len(prompt_ids), -1, 2), prompt_ids)
        interval = bootstrap_mean(
            wins[name], samples=settings.bootstrap_samples, confidence=settings.confidence, seed=context.seed
        )
        context.output.counts |= {
            f"win_vs_{name}": interval.mean,
            f"win_vs_{name}_low": interval.low,
            f"win_vs_{name}_high": interval.high,
        }
    for name, policy in policies.items():
        context.output.counts |= {
            f"{name}_mean_tokens": policy.mean_tokens,
            f"{name}_distinct": policy.distinct,
            f"{name}_unfinished": policy.unfinished,
        }
    columns = {"prompt_id": prompt_ids, **{f"win_vs_{name}": values for name, values in wins.items()}}
    write_table(context.output.path / EVALUATION_FILE, pa.table(columns, schema=EVALUATION))
    context.output.rows = len(prompt_ids)
    context.output.counts["prompts"] = len(prompt_ids)


def read_held_out(artifact: Artifact) -> HeldOut:
    """Read a held-out rollouts artifact."""
    table = read_table(artifact.file(ROLLOUTS_FILE), ROLLOUTS)
    rows = table.select(["prompt_id", "prompt", "messages", "responses"]).to_pylist()
    responses = [response for row in rows for response in row["responses"]]
    texts = {row["prompt_id"]: [response["text"] for response in row["responses"]] for row in rows}
    return HeldOut(
        prompts={row["prompt_id"]: {"prompt": row["prompt"], "messages": row["messages"]} for row in rows},
        responses=texts,
        mean_tokens=sum(len(response["token_ids"]) for response in responses) / len(responses),
        distinct=sum(len(set(group)) for group in texts.values()) / len(responses),
        unfinished=sum(response["finish_reason"] == "length" for response in responses),
    )


def _rows(prompt_ids: Sequence[str], new: HeldOut, opponents: Sequence[HeldOut]) -> tuple[list[Row], list[slice]]:
    """Rows of every opponent in turn, both orders side by side; the slice of each opponent."""
    rows: list[Row] = []
    spans = []
    for opponent in opponents:
        start = len(rows)
        for prompt_id in prompt_ids:
            for ours in new.responses[prompt_id]:
                for theirs in opponent.responses[prompt_id]:
                    rows += both_orders(new.prompts[prompt_id], ours, theirs)
        spans.append(slice(start, len(rows)))
    return rows, spans


def win_rates(logits_NM2: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.float64]:
    """Win rate [N] of each prompt; ``logits[n, m]`` is one pair of responses, new shown first and new shown second."""
    refuse_not_finite(logits_NM2, prompt_ids)
    return sigmoid((logits_NM2[..., 0] - logits_NM2[..., 1]) / 2).mean(axis=1)
