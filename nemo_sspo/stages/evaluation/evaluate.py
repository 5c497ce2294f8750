"""Oracle win rate of an iteration's policy against every earlier one, on held-out prompts.

The evaluations of all iterations together form the matrix of win rates between policies (SPPO Fig. 3).

A prompt's win rate is the mean over pairs (new response, other's response) of P(new beats other), with both orders of
presentation combined (`half`). Prompts are independent, the responses to one prompt are not: the interval resamples
prompts. With `evaluation.best_of_n`, the best of n samples meets the base too.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.matchups import opponents
from nemo_sspo.artifacts.tables import BEST_OF_N, EVALUATION, MATCHUPS
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import PreferenceOracle
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.evaluation.best_of_n import best_of_n, read_samples
from nemo_sspo.stages.evaluation.bootstrap import bootstrap_mean
from nemo_sspo.stages.evaluation.matches import (
    HeldOut,
    judged,
    length_controlled,
    longer,
    match_rows,
    read_held_out,
    resampling,
)
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.judging import resources


def run(context: StageContext) -> None:
    """Publish evaluation.parquet, matchups.parquet, and the win rates with their intervals as counts."""
    k, judging = context.experiment.rollout.held_out_samples_per_prompt, context.experiment.judging
    new = read_held_out(context.input("new"), k, judging)
    earlier = [read_held_out(artifact, k, judging) for artifact in context.inputs["earlier"]]
    for policy, opponent in enumerate(earlier):
        if opponent.prompts != new.prompts:
            raise UserError(f"evaluate: the held-out prompts of policy {policy} (0: the base) are not the new policy's")
    prompt_ids = sorted(new.prompts)

    rows, spans = match_rows(prompt_ids, [(new, opponent) for opponent in earlier])
    context.progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    oracle = load_oracle(context.experiment.oracle, resources(context))
    wins, asked = judged(context, oracle, prompt_ids, rows, spans)

    counts, named = context.output.counts, opponents(context.iteration)
    counts |= asked
    for name, policy in named.items():
        counts |= _interval(context, f"win_vs_{name}", wins[policy])
    at_equal_length = length_controlled(wins[0], longer(new, earlier[0], prompt_ids), resampling(context))
    counts |= _as_counts("length_controlled_win_vs_base", at_equal_length)
    for name, facts in {"new": new, "previous": earlier[-1], "base": earlier[0]}.items():
        counts |= {
            f"{name}_mean_tokens": facts.mean_tokens,
            f"{name}_distinct": facts.distinct,
            f"{name}_unfinished": facts.unfinished,
        }
    columns = {"prompt_id": prompt_ids, **{f"win_vs_{name}": wins[named[name]] for name in ("previous", "base")}}
    EVALUATION.write(context.output.path, columns)
    MATCHUPS.write(context.output.path, _matchups(prompt_ids, new, earlier, wins))
    context.output.rows = counts["prompts"] = len(prompt_ids)
    if (n := context.experiment.evaluation.best_of_n) is not None:
        _evaluate_best_of_n(context, oracle, earlier[0], n)


def _interval(context: StageContext, name: str, wins_N: NDArray[np.float64]) -> dict[str, float]:
    """A mean win rate and the ends of its interval, as counts."""
    return _as_counts(name, bootstrap_mean(wins_N, **resampling(context)))


def _as_counts(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


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
            "length_difference": longer(new, opponent, prompt_ids),
        }
        tables.append(MATCHUPS.of(columns))
    return pa.concat_tables(tables)


def _evaluate_best_of_n(context: StageContext, oracle: PreferenceOracle, base: HeldOut, n: int) -> None:
    """Publish best_of_n.parquet, and its win rate with its interval as counts."""
    samples = read_samples(context.input("new"), n, context.experiment.judging)
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
    BEST_OF_N.write(context.output.path, columns)
