"""Policies before benchmarks, for the cells that have no number yet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from nemo_sspo.config.benchmarks import SAMPLING, AnsweredBenchmark, BenchmarkRequest
from nemo_sspo.errors import UserError
from nemo_sspo.reproduce.declarations import Policy, Table
from nemo_sspo.reproduce.measures.registry import MEASURES
from nemo_sspo.reproduce.needs import cells
from nemo_sspo.reproduce.place import Missing, Place


@dataclass(frozen=True)
class Task:
    """One policy before one benchmark and one judge."""

    benchmark: str
    policy: Policy
    annotator: str | None
    """AlpacaEval's settings of its judge."""


def tasks_of(place: Place, table: Table) -> list[Task]:
    """What has to be asked or judged, each once. A cell whose file is not what it should be is asked for again."""
    return list(dict.fromkeys(_tasks(place, table)))


def request_of(place: Place, task: Task) -> BenchmarkRequest:
    """How the policy is asked."""
    (name,) = (name for name in get_args(AnsweredBenchmark) if name == task.benchmark)
    asked = place.examinee(task.policy)
    return BenchmarkRequest(
        run=str(asked.root),
        iteration=asked.iteration,
        model=None if asked.of_run else asked.who,
        benchmark=name,
        questions=str(place.questions[name]),
        output=str(place.answers(task.policy, name)),
        model_name=asked.name,
        sampling=SAMPLING[name],
    )


def _tasks(place: Place, table: Table) -> Iterator[Task]:
    for cell in (cell for row in cells(table) for cell in row):
        if cell.benchmark is None or cell.row.best_of is not None:
            continue
        column = cell.column
        annotator = column.annotator if column.measure == "alpaca-eval" else None
        for policy in cell.policies:
            try:
                MEASURES[column.measure](place, cell)
            except (Missing, UserError):
                yield Task(cell.benchmark, policy, annotator)
