"""Oracle win rate of an iteration's policy against every earlier one, on held-out prompts.

The evaluations of all iterations together are the matrix of who beats whom (SPPO Fig. 3).

A prompt's win rate is the mean over pairs (new response, other's response) of P(new beats other), with both orders of
presentation combined (`half`). Prompts are independent, the responses to one prompt are not: the interval resamples
prompts. With `evaluation.best_of_n`, the best of n samples meets the base too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import BEST_OF_N as BEST_OF_N_FILE
from nemo_sspo.artifacts.layout import EVALUATION as EVALUATION_FILE
from nemo_sspo.artifacts.layout import MATCHUPS as MATCHUPS_FILE
from nemo_sspo.artifacts.layout import ROLLOUTS as ROLLOUTS_FILE
from nemo_sspo.artifacts.matchups import opponents
from nemo_sspo.artifacts.schema import BEST_OF_N, EVALUATION, MATCHUPS, ROLLOUTS
from nemo_sspo.artifacts.store import Artifact, read_table, write_table
from nemo_sspo.errors import UserError
from nemo_sspo.objective.length_control import bounded_difference, win_at_equal_length
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.oracle.protocol import PreferenceOracle, Row
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.best_of_n import best_of_n, read_samples
from nemo_sspo.stages.bootstrap import Interval, bootstrap, bootstrap_mean
from nemo_sspo.stages.context import StageContext
from nemo_sspo.stages.judging import both_orders, workplace
from nemo_sspo.stages.score import refuse_not_finite


class Resampling(TypedDict):
    """How the intervals of an evaluation are made."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A policy's responses to the held-out prompts, by prompt id."""

    prompts: dict[str, dict[str, Any]]
    """Text and messages."""
    responses: dict[str, list[str]]
    tokens: dict[str, float]
    """Mean tokens of a response, by prompt id."""
    mean_tokens: float
    distinct: float
    """Share of a prompt's responses that differ from each other, over all prompts."""
    unfinished: int


def run(context: StageContext) -> None:
    """Publish evaluation.parquet, matchups.parquet, and the win rates with their intervals as counts."""
    k = context.experiment.rollout.held_out_samples_per_prompt
    new = read_held_out(context.input("new"), k)
    earlier = [read_held_out(artifact, k) for artifact in context.inputs["earlier"]]
    for policy, opponent in enumerate(earlier):
        if opponent.prompts != new.prompts:
            raise UserError(f"evaluate: the held-out prompts of policy {policy} (0: the base) are not the new policy's")
    prompt_ids = sorted(new.prompts)

    rows, spans = _rows(prompt_ids, new, earlier)
    context.progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    oracle = load_oracle(context.experiment.oracle, workplace(context))
    preferences = oracle.compare(rows, lambda done: context.progress.update(done, len(rows), unit="comparisons"))
    logits = preferences.logits_R.astype(np.float64)
    wins = [win_rates(logits[span].reshape(len(prompt_ids), -1, 2), prompt_ids) for span in spans]

    counts, named = context.output.counts, opponents(context.iteration)
    counts |= preferences.facts
    for name, policy in named.items():
        counts |= _interval(context, f"win_vs_{name}", wins[policy])
    counts |= _length_controlled(context, new, earlier[0], wins[0], prompt_ids)
    for name, facts in {"new": new, "previous": earlier[-1], "base": earlier[0]}.items():
        counts |= {
            f"{name}_mean_tokens": facts.mean_tokens,
            f"{name}_distinct": facts.distinct,
            f"{name}_unfinished": facts.unfinished,
        }
    columns = {"prompt_id": prompt_ids, **{f"win_vs_{name}": wins[named[name]] for name in ("previous", "base")}}
    write_table(context.output.path / EVALUATION_FILE, pa.table(columns, schema=EVALUATION))
    write_table(context.output.path / MATCHUPS_FILE, _matchups(prompt_ids, new, earlier, wins))
    context.output.rows = counts["prompts"] = len(prompt_ids)
    if (n := context.experiment.evaluation.best_of_n) is not None:
        _evaluate_best_of_n(context, oracle, earlier[0], n)


def _interval(context: StageContext, name: str, wins_N: NDArray[np.float64]) -> dict[str, float]:
    """A mean win rate and the ends of its interval, as counts."""
    return _as_counts(name, bootstrap_mean(wins_N, **_resampling(context)))


def _length_controlled(
    context: StageContext, new: HeldOut, base: HeldOut, wins_N: NDArray[np.float64], prompt_ids: Sequence[str]
) -> dict[str, float]:
    """The win rate against the base at equal length, as counts."""
    difference_N = bounded_difference(_longer(new, base, prompt_ids))
    interval = bootstrap(
        lambda rows_SN: win_at_equal_length(wins_N[rows_SN], difference_N[rows_SN]),
        len(prompt_ids),
        **_resampling(context),
    )
    return _as_counts("length_controlled_win_vs_base", interval)


def _resampling(context: StageContext) -> Resampling:
    settings = context.experiment.evaluation
    return {"samples": settings.bootstrap_samples, "confidence": settings.confidence, "seed": context.seed}


def _as_counts(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _longer(new: HeldOut, opponent: HeldOut, prompt_ids: Sequence[str]) -> NDArray[np.float64]:
    """By how many tokens the new policy's responses to each prompt [N] are longer, on average."""
    return np.array([new.tokens[prompt_id] - opponent.tokens[prompt_id] for prompt_id in prompt_ids])


def _matchups(
    prompt_ids: Sequence[str], new: HeldOut, earlier: Sequence[HeldOut], wins: Sequence[NDArray[np.float64]]
) -> pa.Table:
    """One row per earlier policy and prompt."""
    tables = []
    for policy, (opponent, wins_N) in enumerate(zip(earlier, wins, strict=True)):
        columns = {
            "opponent": [policy] * len(prompt_ids),
            "prompt_id": prompt_ids,
            "win": wins_N,
            "length_difference": _longer(new, opponent, prompt_ids),
        }
        tables.append(pa.table(columns, schema=MATCHUPS))
    return pa.concat_tables(tables)


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
    counts = context.output.counts
    counts |= {name: int(counts.get(name) or 0) + count for name, count in found.facts.items()}
    counts |= _interval(context, "best_of_n_win_vs_base", found.wins_N)
    counts |= {
        "best_of_n": n,
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
    tokens = {row["prompt_id"]: fmean(len(response["token_ids"]) for response in row["responses"]) for row in rows}
    texts = {row["prompt_id"]: [response["text"] for response in row["responses"]] for row in rows}
    return HeldOut(
        prompts={row["prompt_id"]: {"prompt": row["prompt"], "messages": row["messages"]} for row in rows},
        responses=texts,
        tokens=tokens,
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
