"""Oracle win rate of an iteration's policy against the previous one and the base, on held-out prompts.

A prompt's win rate is the mean over pairs (new response, other's response) of P(new beats other), with both orders of
presentation combined (`half`). Prompts are independent, the responses to one prompt are not: the interval resamples
prompts. With `evaluation.best_of_n`, the best of n samples meets the base too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import BEST_OF_N as BEST_OF_N_FILE
from nemo_sspo.artifacts.layout import EVALUATION as EVALUATION_FILE
from nemo_sspo.artifacts.layout import ROLLOUTS as ROLLOUTS_FILE
from nemo_sspo.artifacts.schema import BEST_OF_N, EVALUATION, ROLLOUTS
from nemo_sspo.artifacts.store import Artifact, read_table, write_table
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.oracle.protocol import PreferenceOracle, Row
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.best_of_n import best_of_n, read_samples
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
    k = context.experiment.rollout.held_out_samples_per_prompt
    policies = {name: read_held_out(context.input(name), k) for name in ("new", "previous", "base")}
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
    if settings.best_of_n is not None:
        _evaluate_best_of_n(context, oracle, policies["base"], settings.best_of_n)


def _evaluate_best_of_n(context: StageContext, oracle: PreferenceOracle, base: HeldOut, n: int) -> None:
    """Publish best_of_n.parquet, and its win rate with its interval as counts."""
    samples = read_samples(context.input("new"), n)
    found = best_of_n(
        oracle,
        base.prompts,
        samples,
        base.responses,
        lambda done, total: context.progress.update(done, total, unit="comparisons", note=f"best of {n}"),
    )
    counts, settings = context.output.counts, context.experiment.evaluation
    counts |= {name: int(counts.get(name) or 0) + count for name, count in found.facts.items()}
    interval = bootstrap_mean(
        found.wins_N, samples=settings.bootstrap_samples, confidence=settings.confidence, seed=context.seed
    )
    counts |= {
        "best_of_n": n,
        "best_of_n_win_vs_base": interval.mean,
        "best_of_n_win_vs_base_low": interval.low,
        "best_of_n_win_vs_base_high": interval.high,
        "best_of_n_mean_tokens": sum(sample.tokens for sample in found.picked) / len(found.picked),
    }
    columns = {
        "prompt_id": list(samples),
        "response_id": [sample.response_id for sample in found.picked],
        "win_vs_base": found.wins_N,
    }
    write_table(context.output.path / BEST_OF_N_FILE, pa.table(columns, schema=BEST_OF_N))


def read_held_out(artifact: Artifact, samples: int) -> HeldOut:
    """Read the first `samples` responses to each prompt of a held-out rollouts artifact."""
    table = read_table(artifact.file(ROLLOUTS_FILE), ROLLOUTS)
    rows = table.select(["prompt_id", "prompt", "messages", "responses"]).to_pylist()
    rows = [row | {"responses": row["responses"][:samples]} for row in rows]
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
