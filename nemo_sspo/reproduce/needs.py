"""What a table needs: steps of runs, policies before benchmarks, and whose weights and judges these want."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.reproduce.declarations import RUN_PREFIX, AnyColumn, Paper, Policy, Row, Table, policy_of

_BENCHMARKS = {
    **{name: name for name in ("alpaca-eval", "mt-bench", "arena-hard", "lm-eval")},
    **{"answer": "own", "pairrm": "own"},
}
_STAGES = {"margin": ("diagnose",), "held-out": ("evaluate",)}


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    row: Row
    column: AnyColumn
    policy: Policy | None
    published: float | None

    @property
    def benchmark(self) -> str | None:
        """The benchmark that its policies answer."""
        return _BENCHMARKS.get(self.column.measure)

    @property
    def policies(self) -> list[Policy]:
        """Whom it measures: the row's policy, and an opponent."""
        if self.policy is None:
            return []
        opponent = self.column.opponent if self.column.measure == "pairrm" else None
        return [self.policy, *([policy_of(opponent, self.column.iteration)] if opponent else [])]


def cells(table: Table) -> list[list[Cell]]:
    """The table, row by row."""
    return [
        [
            Cell(row, column, policy_of(row.policy, column.iteration) if row.policy else None, published)
            for column, published in zip(table.columns, row.published, strict=True)
        ]
        for row in table.rows
    ]


def runs_of(table: Table) -> dict[str, set[tuple[str, int]]]:
    """The stages that a table reads of each run, with their iteration; a policy before a benchmark is an export."""
    wanted: dict[str, set[tuple[str, int]]] = {}
    for cell in (cell for row in cells(table) for cell in row):
        for policy in cell.policies:
            if policy.iteration is not None:
                stages = cell.column.stages if cell.column.measure == "cost" else _STAGES.get(cell.column.measure)
                wanted.setdefault(policy.name, set()).update((name, policy.iteration) for name in stages or ("export",))
    return wanted


def checkpoints_of(table: Table) -> list[str]:
    """The checkpoints from outside that a table measures."""
    named = (policy for row in cells(table) for cell in row for policy in cell.policies)
    return list(dict.fromkeys(policy.name for policy in named if policy.iteration is None))


def answers_of(table: Table) -> dict[str, list[Policy]]:
    """Who answers each benchmark."""
    asked: dict[str, dict[Policy, None]] = {}
    for cell in (cell for row in cells(table) for cell in row):
        if cell.benchmark and cell.row.best_of is None:
            asked.setdefault(cell.benchmark, {}).update(dict.fromkeys(cell.policies))
    return {name: list(policies) for name, policies in asked.items()}


def annotators_of(table: Table) -> list[str]:
    """The settings of AlpacaEval's judges."""
    return list(dict.fromkeys(column.annotator for column in table.columns if column.measure == "alpaca-eval"))


def experiment_of(
    paper: Paper, run: str, overrides: Sequence[str], weights: Mapping[str, str], config_dir: Path | None
) -> Experiment:
    """A run as its paper declares it, with the user's overrides over it and weights in the place of hub ids.

    Raises:
        UserError: an override is wrong, or gives a name: that is the table's.
    """
    if any(override.lstrip("+~").partition("=")[0] in ("name", "experiment", "policy") for override in overrides):
        raise UserError("a table's runs have their own names and policies; give weights as --weights HUB_ID=DIRECTORY")
    given = [*paper.runs[run], f"name={RUN_PREFIX}{run}", *overrides]
    experiment = load_experiment(given, config_dir)
    policy = weights.get(experiment.policy)
    return load_experiment([*given, f"policy='{policy}'"], config_dir) if policy else experiment


def steps_for(experiment: Experiment, wanted: set[tuple[str, int]]) -> list[Step]:
    """The steps of a run that publish what is wanted, and all that they read."""
    steps = plan(experiment)
    by_name = {step.step_id: step for step in steps}
    needed = {step.step_id for step in steps if (step.stage, step.iteration) in wanted}
    for step in reversed(steps):
        if step.step_id in needed:
            needed.update(by_name[step.step_id].depends_on)
    return [step for step in steps if step.step_id in needed]
