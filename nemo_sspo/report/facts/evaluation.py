"""How the checkpoints fare on held-out prompts, and how their answers change."""

from collections.abc import Sequence
from dataclasses import dataclass

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.matchups import opponents
from nemo_sspo.report.facts.record import RunRecord

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
    found = ((iteration, run.counts("evaluate", iteration)) for iteration in run.iterations)
    return [
        Evaluated(
            iteration=iteration,
            prompts=counts.get("prompts"),
            wins={
                name: win for name in opponents(iteration) if (win := _win_rate(counts, f"win_vs_{name}")) is not None
            },
            at_equal_length=_win_rate(counts, "length_controlled_win_vs_base"),
            best_of_n=_best_of_n(counts),
            tokens=_by_policy(counts, "mean_tokens"),
            distinct=_by_policy(counts, "distinct"),
            unfinished={name: int(value) for name, value in _by_policy(counts, "unfinished").items()},
        )
        for iteration, counts in found
        if counts
    ]


def sampled(run: RunRecord) -> list[Sampled]:
    """One per iteration with published rollouts."""
    facts = []
    for iteration in run.iterations:
        if not (responses := run.summed("rollout", iteration, "responses")):
            continue
        facts.append(
            Sampled(
                iteration=iteration,
                prompts=_whole(run, iteration, "prompts"),
                responses=int(responses),
                tokens=(run.summed("rollout", iteration, "tokens") or 0.0) / responses,
                unfinished=_whole(run, iteration, "unfinished"),
                empty=_whole(run, iteration, "empty"),
                duplicates=_whole(run, iteration, "duplicates"),
                order_bias=_order_bias(run, iteration),
            )
        )
    return facts


def _win_rate(counts: dict, key: str) -> Interval | None:
    found = [counts[name] for end in ("", "_low", "_high") if (name := f"{key}{end}") in counts]
    return Interval(*found) if len(found) == 3 else None


def _best_of_n(counts: dict) -> BestOfN | None:
    win = _win_rate(counts, "best_of_n_win_vs_base")
    return None if win is None else BestOfN(int(counts["best_of_n"]), win, counts.get("best_of_n_mean_tokens"))


def _by_policy(counts: dict, name: str) -> dict[str, float]:
    keys = {policy: f"{policy}_{name}" for policy in ("new", "previous", "base")}
    return {policy: counts[key] for policy, key in keys.items() if counts.get(key) is not None}


def _whole(run: RunRecord, iteration: int, name: str) -> int:
    return int(run.summed("rollout", iteration, name) or 0)


def _order_bias(run: RunRecord, iteration: int) -> float | None:
    """Over all shards, each weighted by the rows it scored."""
    shards = [step.manifest.counts for step in run.of("score", iteration)]
    weighted = [(shard["rows"], shard["order_bias"]) for shard in shards if {"rows", "order_bias"} <= shard.keys()]
    rows = sum(float(count or 0) for count, _ in weighted)
    return sum(float(count or 0) * float(bias or 0) for count, bias in weighted) / rows if rows else None


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
