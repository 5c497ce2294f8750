"""Several runs side by side: their facts, their settings' differences, and their differences in win rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.tables import EVALUATION
from nemo_sspo.errors import UserError
from nemo_sspo.report.facts.budget import PAIRS_TOLERANCE, Budget, budget
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.report.facts.run_facts import RunFacts, gather
from nemo_sspo.report.facts.settings import differing
from nemo_sspo.report.facts.verdict import Finding, State
from nemo_sspo.stages.evaluation.bootstrap import bootstrap_mean

BOOTSTRAP_SAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Advantage:
    """How much more often a run beats its base than the baseline run does, prompt by prompt."""

    run: int
    """Position among the runs."""
    iteration: int
    prompts: int
    """Held-out prompts that both evaluated."""
    difference: Interval
    """Mean difference of the win rates with its paired bootstrap interval, in [-1, 1]."""
    budgets: tuple[Budget, Budget]
    """What the run and the baseline had spent by the end of that iteration."""

    @property
    def is_fair(self) -> bool:
        """Whether both had the same budget."""
        own, baseline = self.budgets
        return own.equals(baseline)

    @property
    def is_clear(self) -> bool:
        """Whether the budgets are the same and the interval excludes 0."""
        if not self.is_fair:
            return False
        return not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Comparison:
    """Runs in the order given; the first is the baseline."""

    labels: list[str]
    runs: list[RunFacts]
    differences: list[tuple[str, list[str]]]
    """Settings that are not the same in all runs, with each run's value."""
    advantages: list[Advantage]
    same_base: bool
    """Whether all runs start from the same policy and are judged by the same oracle."""
    budgets: list[Budget]
    """What each run has spent by its last evaluated iteration."""


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Gather the facts of several runs.

    Raises:
        UserError: a run is given twice.
    """
    roots = [record.layout.root.resolve() for record in records]
    for position, root in enumerate(roots):
        if root in roots[:position]:
            raise UserError(f"compare: {records[position].layout.root} is given twice")
    names = [record.name for record in records]
    # Before the facts are gathered, which tell what could not be read.
    advantages = [a for position in range(1, len(records)) for a in _advantages(records, position)]
    labels = names if len(set(names)) == len(names) else [str(record.layout.root) for record in records]
    return Comparison(
        labels=labels,
        runs=[gather(record, sample_count=0) for record in records],
        differences=differing(records),
        advantages=advantages,
        same_base=all(_base(record) == _base(records[0]) for record in records),
        budgets=[budget(record, max(_evaluated(record), default=0)) for record in records],
    )


def verdicts(comparison: Comparison) -> list[Finding]:
    """Whether each run does better than the baseline, in the last iteration that both evaluated.

    Nothing is said of runs from different bases, and of unequal budgets only that they are.
    """
    if not comparison.same_base:
        return []
    last = {advantage.run: advantage for advantage in comparison.advantages}
    rule = "clear when the paired interval over held-out prompts excludes 0; it says nothing about other seeds"
    return [_verdict(comparison.labels[run], comparison.labels[0], each, rule) for run, each in last.items()]


def sweep(comparison: Comparison) -> tuple[str, list[tuple[float, Interval]]] | None:
    """The one number in which the runs differ, and the last win rate against the base at each of its values.

    None when they differ in something else too, or when fewer than three runs are evaluated.
    """
    if len(comparison.differences) != 1 or not comparison.same_base:
        return None
    key, values = comparison.differences[0]
    points = []
    for value, run in zip(values, comparison.runs, strict=True):
        number = _number(value)
        if number is not None and run.evaluations and "base" in run.evaluations[-1].wins:
            points.append((number, run.evaluations[-1].wins["base"]))
    return (key, sorted(points, key=lambda point: point[0])) if len(points) >= 3 else None


def _verdict(label: str, baseline: str, advantage: Advantage, rule: str) -> Finding:
    if not advantage.is_fair:
        own, its = advantage.budgets
        return Finding(
            "warn",
            f"{label} cannot be compared with {baseline}: by the end of iteration {advantage.iteration} it had {own}, "
            f"{baseline} {its}.",
            f"a verdict needs the same prompts and steps, and pairs within {PAIRS_TOLERANCE:.0%}",
            "no verdict",
        )
    state: State = "warn"
    outcome, mark = "cannot be told apart from", "open"
    if advantage.is_clear:
        better = advantage.difference.mean > 0
        state, outcome, mark = ("good", "does better than", "better") if better else ("bad", "does worse than", "worse")
    difference = advantage.difference
    return Finding(
        state,
        f"{label} {outcome} {baseline} in iteration {advantage.iteration}: difference in win rate against the base "
        f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}].",
        rule,
        mark,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _advantages(records: Sequence[RunRecord], position: int) -> list[Advantage]:
    """Of one run over the baseline, in every iteration that both evaluated on common prompts."""
    found = []
    for iteration in records[position].iterations:
        own, baseline = (_wins(records[i], iteration) for i in (position, 0))
        common = sorted(own.keys() & baseline.keys())
        if not common:
            continue
        values = np.array([own[prompt] - baseline[prompt] for prompt in common])
        interval = bootstrap_mean(values, samples=BOOTSTRAP_SAMPLES, confidence=CONFIDENCE, seed=iteration)
        budgets = budget(records[position], iteration), budget(records[0], iteration)
        found.append(Advantage(position, iteration, len(common), interval, budgets))
    return found


def _evaluated(record: RunRecord) -> list[int]:
    return [iteration for iteration in record.iterations if record.of("evaluate", iteration)]


def _wins(record: RunRecord, iteration: int) -> dict[str, float]:
    """Win rate against the base by held-out prompt; empty before the evaluation."""
    table = record.table("evaluate", iteration, EVALUATION, ("prompt_id", "win_vs_base"))
    return dict(zip(table["prompt_id"].to_pylist(), table["win_vs_base"].to_pylist(), strict=True))


def _base(record: RunRecord) -> dict[str, object]:
    """What a win rate against the base is measured with, as the artifacts were made: the policy and the judge.

    A file counts by its content where that is known, wherever it lies.
    """
    made_with = {key: value for step in record.steps for key, value in step.manifest.config.items()}
    known = {
        key.removeprefix("content of "): value for key, value in made_with.items() if key.startswith("content of ")
    }
    return {
        key: known.get(key, value)
        for key, value in made_with.items()
        if key == "policy" or (key.startswith("oracle.") and not key.startswith("oracle.batch"))
    }
