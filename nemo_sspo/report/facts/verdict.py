"""Did it work? The run's headline, and what a reader should look into, each by a simple rule that is stated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nemo_sspo.artifacts.diagnostics import Diagnostics
from nemo_sspo.artifacts.selection import EarlyStop
from nemo_sspo.report.facts.evaluation import Evaluated, Sampled
from nemo_sspo.report.facts.training import Step1Identity, TrainingCurve, full_batches

LENGTH_GROWTH = 0.20
RANK_FALL = 0.10
UNFINISHED_SHARE = 0.05
DUPLICATE_SHARE = 0.05
DROPPED_SHARE = 0.10
ORDER_FLIPS = 0.20
LENGTH_CORRELATION = 0.30
DIVERSITY_FALL = 0.10

State = Literal["good", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one rule."""

    state: State
    text: str
    """What was found, with the numbers."""
    rule: str
    """When this would be a warning."""
    mark: str = ""
    """Word for the state where ``ok``, ``warning`` and ``failed`` do not fit."""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    evaluations: Sequence[Evaluated]
    samples: Sequence[Sampled]
    curves: Sequence[TrainingCurve]
    identities: Sequence[Step1Identity]
    dropped: dict[int, dict[str, int]]
    """Prompts without a pair by iteration and reason."""
    diagnosed: Mapping[int, Diagnostics]
    """By iteration."""
    stopped: EarlyStop | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    """Steps that failed, and why."""


def findings(evidence: Evidence) -> list[Finding]:
    """Every rule that has something to look at; the gravest first."""
    found = [
        *_failures(evidence.failed),
        *_early_stop(evidence.stopped),
        *_win_rates(evidence.evaluations),
        *_equal_length(evidence.evaluations),
        *_identities(evidence.identities),
        *_losses(evidence.curves),
        *_ranks(evidence.curves),
        *_lengths(evidence.evaluations),
        *_responses(evidence.samples),
        *_dropped({i: sum(counts.values()) for i, counts in evidence.dropped.items()}, evidence.samples),
        *_oracle(evidence.diagnosed),
        *_diversity(evidence.diagnosed),
    ]
    order = {"bad": 0, "warn": 1, "good": 2}
    return sorted(found, key=lambda finding: order[finding.state])


def _failures(failed: Mapping[str, str]) -> Iterator[Finding]:
    for step, reason in failed.items():
        yield Finding("bad", f"{step} failed: {reason}", "a failure until the step begins again")


def _early_stop(stopped: EarlyStop | None) -> Iterator[Finding]:
    if stopped is not None:
        yield Finding(
            "warn",
            f"The run has {stopped}.",
            "a warning when no candidate of an iteration wins for sure against the policy that it started from",
        )


def _win_rates(evaluations: Sequence[Evaluated]) -> Iterator[Finding]:
    if not evaluations:
        return
    last = evaluations[-1]
    for opponent, name in (("base", "the base policy"), ("previous", "the previous iteration")):
        if (win := last.wins.get(opponent)) is None:
            continue
        if opponent == "previous" and last.iteration == 1:
            continue  # the previous policy of iteration 1 is the base
        state: State = "good"
        outcome = "beats"
        if win.includes_half:
            state, outcome = "warn", "cannot be told apart from"
        elif win.mean < 0.5:
            state, outcome = "bad", "loses to"
        yield Finding(
            state,
            f"Iteration {last.iteration} {outcome} {name}: win rate {win}.",
            "a warning when the interval includes ½, a failure when it lies below",
        )


def _equal_length(evaluations: Sequence[Evaluated]) -> Iterator[Finding]:
    """Only where the policy beats the base at all."""
    if not evaluations or (controlled := evaluations[-1].at_equal_length) is None:
        return
    win = evaluations[-1].wins.get("base")
    if win is None or win.includes_half or win.mean < 0.5:
        return
    lost = controlled.includes_half or controlled.mean < 0.5
    outcome = "no longer beats" if lost else "beats"
    yield Finding(
        "warn" if lost else "good",
        f"Iteration {evaluations[-1].iteration} {outcome} the base policy at equal length: win rate {controlled}.",
        "a warning when the interval at equal length includes ½ or lies below: longer answers are what wins",
    )


def _identities(identities: Sequence[Step1Identity]) -> Iterator[Finding]:
    known = [identity for identity in identities if identity.holds is not None]
    if not known:
        return
    worst = max(known, key=lambda identity: identity.relative_difference or 0.0)
    held = all(identity.holds for identity in known)
    text = "equals" if held else "differs from"
    yield Finding(
        "good" if held else "bad",
        f"The loss at step 1 {text} its closed form in {'every' if held else 'at least one'} trained iteration: "
        f"largest relative difference {worst.relative_difference:.1g} (iteration {worst.iteration}).",
        f"a failure above {worst.bound:g} relative: then the reference log-probs are not the starting policy's",
    )


def _losses(curves: Sequence[TrainingCurve]) -> Iterator[Finding]:
    for curve in curves:
        first, last = curve.first("loss"), curve.last("loss")
        if first is None or last is None or len(curve.steps) < 2 or not curve.finished:
            continue
        risen = last > first
        yield Finding(
            "warn" if risen else "good",
            f"Iteration {curve.iteration}: the loss {'ended above its start' if risen else 'fell'}, "
            f"{first:.4g} → {last:.4g}.",
            "a warning when the last step's loss is above the first's (batches differ: look at the whole curve)",
        )


def _ranks(curves: Sequence[TrainingCurve]) -> Iterator[Finding]:
    ends = [(c.iteration, rank) for c in curves if c.finished and (rank := _edge_rank(c, last=True)) is not None]
    if not curves or not ends or (start := _edge_rank(curves[0], last=False)) is None:
        return
    iteration, end = ends[-1]
    fallen = end < (1 - RANK_FALL) * start
    yield Finding(
        "warn" if fallen else "good",
        f"Effective rank of the responses' states: {start:.1f} at the start, {end:.1f} at the end of "
        f"iteration {iteration} ({end / start - 1:+.0%}).",
        "a warning when it falls by more than 10 %: the responses' representations collapse",
    )


def _edge_rank(curve: TrainingCurve, *, last: bool) -> float | None:
    """Mean effective rank over the first or the last tenth of the steps on full batches."""
    full = [rank for _, rank in full_batches(curve, "effective_rank")]
    if not full:
        return None
    size = max(1, len(full) // 10)
    edge = full[-size:] if last else full[:size]
    return sum(edge) / len(edge)


def _lengths(evaluations: Sequence[Evaluated]) -> Iterator[Finding]:
    if not evaluations or not {"new", "base"} <= evaluations[-1].tokens.keys():
        return
    new, base = (evaluations[-1].tokens[name] for name in ("new", "base"))
    if not base:
        return
    grown = new > (1 + LENGTH_GROWTH) * base
    yield Finding(
        "warn" if grown else "good",
        f"Held-out responses went from {base:.1f} to {new:.1f} tokens ({new / base - 1:+.0%}).",
        "a warning when they grow by more than 20 %: the oracle may reward length",
    )


def _responses(samples: Sequence[Sampled]) -> Iterator[Finding]:
    for sample in samples:
        for count, limit, what in (
            (sample.unfinished, UNFINISHED_SHARE, "cut at the token limit"),
            (sample.duplicates, DUPLICATE_SHARE, "duplicates of another response to the same prompt"),
        ):
            if count > limit * sample.responses:
                yield Finding(
                    "warn",
                    f"Iteration {sample.iteration}: {count / sample.responses:.0%} of the responses are {what}.",
                    f"a warning above {limit:.0%}",
                )


def _dropped(dropped: dict[int, int], samples: Sequence[Sampled]) -> Iterator[Finding]:
    prompts = {sample.iteration: sample.prompts for sample in samples}
    for iteration, count in dropped.items():
        total = prompts.get(iteration, 0)
        if total and count > DROPPED_SHARE * total:
            yield Finding(
                "warn",
                f"Iteration {iteration}: {count} of {total} prompts without a training pair.",
                "a warning above 10 %; the reasons are listed below",
            )


def _oracle(diagnosed: Mapping[int, Diagnostics]) -> Iterator[Finding]:
    for iteration, found in diagnosed.items():
        flips, length = found.oracle.order_flip_share, found.oracle.length_correlation
        if flips > ORDER_FLIPS:
            yield Finding(
                "warn",
                f"Iteration {iteration}: the oracle's winner changes with the order of presentation in {flips:.0%} of "
                "the response pairs.",
                "a warning above 20 %: many preferences are accidents of order",
            )
        if length is not None and length > LENGTH_CORRELATION:
            yield Finding(
                "warn",
                f"Iteration {iteration}: the oracle prefers longer responses (correlation {length:+.2f}).",
                "a warning above 0.3: length is what the policy learns",
            )


def _diversity(diagnosed: Mapping[int, Diagnostics]) -> Iterator[Finding]:
    known = [(i, value) for i, each in diagnosed.items() if (value := each.collapse.distinct_2) is not None]
    if len(known) < 2 or not known[0][1]:
        return
    (first, start), (last, end) = known[0], known[-1]
    fallen = end < (1 - DIVERSITY_FALL) * start
    yield Finding(
        "warn" if fallen else "good",
        f"Distinct bigrams of a prompt's responses: {start:.2f} in iteration {first}, {end:.2f} in iteration {last}.",
        "a warning when they fall by more than 10 %: the responses become one another",
    )
