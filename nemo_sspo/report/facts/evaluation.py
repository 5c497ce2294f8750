"""How the checkpoints fare on held-out prompts, and how their answers change."""

from collections.abc import Sequence
from dataclasses import dataclass

from nemo_sspo.artifacts.facts.evaluation import EvaluationFacts
from nemo_sspo.artifacts.facts.sampling import RolloutFacts, ScoreFacts
from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.matchups import opponents
from nemo_sspo.report.facts.record import RunRecord, total

OPPONENTS = ("base", "previous")


@dataclass(frozen=True)
class BestOfN:
    """The best of n samples, as the oracle picks it, against the base."""

    n: int
    win: Interval
    tokens: float | None
    """Mean tokens of a response that was picked."""


@dataclass(frozen=True)
class Evaluated:
    """One iteration's policy on the held-out prompts."""

    iteration: int
    prompts: int | None
    wins: dict[str, Interval]
    """By opponent: ``base``, ``previous``, and ``iter_k`` between them."""
    at_equal_length: Interval | None
    """Against the base, with the advantage of longer answers taken out."""
    best_of_n: BestOfN | None
    tokens: dict[str, float]
    """Mean tokens of a response by policy: ``new``, ``previous``, ``base``."""
    distinct: dict[str, float]
    """Share of a prompt's responses that differ from each other, by policy."""
    unfinished: dict[str, int]


@dataclass(frozen=True)
class Sampled:
    """The responses that an iteration trained on."""

    iteration: int
    prompts: int
    responses: int
    tokens: float
    """Mean tokens of a response."""
    unfinished: int
    empty: int
    duplicates: int
    """Responses whose text another response to the same prompt has too."""
    order_bias: float | None
    """Mean |l_ij + l_ji|, 0 for an oracle that is blind to the order of presentation."""


def evaluations(run: RunRecord) -> list[Evaluated]:
    """One per evaluated iteration."""
    return [
        _evaluated(iteration, facts)
        for iteration in run.iterations
        for facts in run.facts("evaluate", iteration, EvaluationFacts)
        if facts.wins
    ]


def sampled(run: RunRecord) -> list[Sampled]:
    """One per iteration with published rollouts."""
    found = []
    for iteration in run.iterations:
        shards = run.facts("rollout", iteration, RolloutFacts)
        if not (responses := total(shard.responses for shard in shards)):
            continue
        found.append(
            Sampled(
                iteration=iteration,
                prompts=total(shard.prompts for shard in shards) or 0,
                responses=responses,
                tokens=(total(shard.tokens for shard in shards) or 0) / responses,
                unfinished=total(shard.unfinished for shard in shards) or 0,
                empty=total(shard.empty for shard in shards) or 0,
                duplicates=total(shard.duplicates for shard in shards) or 0,
                order_bias=_order_bias(run.facts("score", iteration, ScoreFacts)),
            )
        )
    return found


def _evaluated(iteration: int, facts: EvaluationFacts) -> Evaluated:
    best = facts.best_of_n_win_vs_base
    return Evaluated(
        iteration=iteration,
        prompts=facts.prompts,
        wins={name: facts.wins[name] for name in opponents(iteration) if name in facts.wins},
        at_equal_length=facts.length_controlled_win_vs_base,
        best_of_n=None if best is None else BestOfN(facts.best_of_n or 0, best, facts.best_of_n_mean_tokens),
        tokens=facts.mean_tokens,
        distinct=facts.distinct,
        unfinished=facts.unfinished,
    )


def _order_bias(shards: Sequence[ScoreFacts]) -> float | None:
    """Over all shards, each weighted by the rows it scored."""
    weighted = [(shard.rows, shard.order_bias) for shard in shards if shard.rows and shard.order_bias is not None]
    rows = sum(count for count, _ in weighted)
    return sum(count * bias for count, bias in weighted) / rows if rows else None


@dataclass(frozen=True)
class WinMatrix:
    """Win rates between policies (SPPO Fig. 3): policy 0 is the base, policy t the result of iteration t."""

    policies: list[int]
    cells: dict[tuple[int, int], Interval]
    """Win rate of the first against the second; a pair that was never compared is left out."""


def win_matrix(evaluated: Sequence[Evaluated]) -> WinMatrix:
    """All comparisons that were evaluated, in both directions: the second's win rate is what the first's leaves."""
    cells: dict[tuple[int, int], Interval] = {}
    for each in evaluated:
        policies = opponents(each.iteration)
        for name, win in each.wins.items():
            cells[each.iteration, policies[name]] = win
            cells[policies[name], each.iteration] = win.of_the_other
    return WinMatrix(sorted({policy for pair in cells for policy in pair}), cells)
