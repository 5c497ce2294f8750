"""Oracle win rate of an iteration's policy against every earlier one, on held-out prompts.

The evaluations of all iterations together form the matrix of win rates between policies (SPPO Fig. 3).

A prompt's win rate is the mean over pairs (new response, other's response) of P(new beats other), with both orders of
presentation combined (`half`). Prompts are independent, the responses to one prompt are not: the interval resamples
prompts. With `evaluation.best_of_n`, the best of n samples meets the base too.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.facts.evaluation import EvaluationFacts
from nemo_sspo.artifacts.matchups import opponents
from nemo_sspo.artifacts.tables import BEST_OF_N, EVALUATION, MATCHUPS
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import PreferenceOracle
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.evaluation.best_of_n import BestOfN, best_of_n, read_samples
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
    """Publish evaluation.parquet, matchups.parquet, and the win rates with their intervals as facts."""
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

    named = opponents(context.iteration)
    columns = {"prompt_id": prompt_ids, **{f"win_vs_{name}": wins[named[name]] for name in ("previous", "base")}}
    EVALUATION.write(context.output.path, columns)
    MATCHUPS.write(context.output.path, _matchups(prompt_ids, new, earlier, wins))
    n = context.experiment.evaluation.best_of_n
    best = None if n is None else _best_of_n(context, oracle, earlier[0], n)
    judge = Counter(asked)
    judge.update({} if best is None else best.facts)
    policies = {"new": new, "previous": earlier[-1], "base": earlier[0]}
    how = resampling(context)
    context.output.rows = len(prompt_ids)
    context.output.facts = EvaluationFacts(
        prompts=len(prompt_ids),
        wins={name: bootstrap_mean(wins[policy], **how) for name, policy in named.items()},
        length_controlled_win_vs_base=length_controlled(wins[0], longer(new, earlier[0], prompt_ids), how),
        mean_tokens={name: policy.mean_tokens for name, policy in policies.items()},
        distinct={name: policy.distinct for name, policy in policies.items()},
        unfinished={name: policy.unfinished for name, policy in policies.items()},
        best_of_n=n,
        best_of_n_win_vs_base=None if best is None else bootstrap_mean(best.wins_N, **how),
        best_of_n_mean_tokens=None if best is None else sum(sample.tokens for sample in best.picked) / len(best.picked),
        judge=dict(judge),
    )


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


def _best_of_n(context: StageContext, oracle: PreferenceOracle, base: HeldOut, n: int) -> BestOfN:
    """Publish best_of_n.parquet."""
    samples = read_samples(context.input("new"), n, context.experiment.judging)
    found = best_of_n(
        oracle,
        base.prompts,
        samples,
        base.responses,
        lambda done, total: context.progress.update(done, total, unit="comparisons", note=f"best of {n}"),
    )
    columns = {
        "prompt_id": list(samples),
        "response_id": [sample.response_id for sample in found.picked],
        "win_vs_base": found.wins_N,
    }
    BEST_OF_N.write(context.output.path, columns)
    return found
