"""Make what is missing of a table: its runs, the answers of its policies, and their judgements."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.commands.terminal import say
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    from nemo_sspo.reproduce.cost import RunWork
    from nemo_sspo.reproduce.declarations import Table
    from nemo_sspo.reproduce.place import Place
    from nemo_sspo.reproduce.tasks import Task


def make(console: Console, table: "Table", place: "Place", work: "Sequence[RunWork]", python: str | None) -> int:
    """Run what is missing, then ask and have judged; the first code that is not 0."""
    from nemo_sspo.reproduce.tasks import tasks_of

    codes = [_run(console, each, work) for each in work if each.missing or each.shared]
    codes += [_ask(console, place, task, python) for task in tasks_of(place, table)]
    if any(column.measure == "pairrm" for column in table.columns):
        codes.append(_compare(console, place, table, python))
    return next((code for code in codes if code), 0)


def _run(console: Console, each: "RunWork", work: "Sequence[RunWork]") -> int:
    from nemo_sspo.artifacts.layout import RunLayout
    from nemo_sspo.artifacts.store import is_published
    from nemo_sspo.commands.driving import drive
    from nemo_sspo.launch.preflight import problems
    from nemo_sspo.launch.run_directory import bind, hold
    from nemo_sspo.launch.slurm.submit import refuse_beside_jobs
    from nemo_sspo.reproduce.sharing import share

    experiment, layout = each.experiment, RunLayout(each.experiment.run_dir)
    if found := problems(experiment):
        raise UserError(f"{each.name}: {found[0]}")
    with hold(layout):
        refuse_beside_jobs(layout.root)
        bind(experiment, layout)
        taken = share(experiment, each.steps, [other.experiment for other in work if other is not each])
    if taken:
        say(console, f"{each.name}: {len(taken)} steps are another run's too and are not made again")
    if all(is_published(step.output) for step in each.steps):
        return 0
    if experiment.cluster.kind == "slurm":
        say(console, f"{each.name}: nemo-sspo submit {shlex.quote(str(layout.root))}; then run this command again")
        return 1
    say(console, str(layout.root), "bold")
    return drive(experiment, console, each.steps)


def _ask(console: Console, place: "Place", task: "Task", python: str | None) -> int:
    """Have one policy answer and judged; what keeps it from that is said, and the others go on."""
    try:
        return _asked(console, place, task, python)
    except UserError as error:
        print(f"error: {task.policy}: {error}", file=sys.stderr)
        return UserError.EXIT_CODE


def _asked(console: Console, place: "Place", task: "Task", python: str | None) -> int:
    from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
    from nemo_sspo.artifacts.store import is_published
    from nemo_sspo.commands import lm_eval
    from nemo_sspo.commands.benchmark import have_judged
    from nemo_sspo.reproduce.tasks import request_of

    asked = place.examinee(task.policy)
    exported = RunLayout(asked.root).artifact("export", asked.iteration)
    if asked.of_run and not is_published(exported):
        say(console, f"{task.policy}: not asked, {exported / HF_MODEL} is not there yet")
        return 1
    if task.benchmark == "lm-eval":
        usual = {
            "python": python,
            "output": None,
            "tasks": None,
            "backend": "vllm",
            "device": None,
            "include_path": None,
        }
        return lm_eval.have_counted(asked, argparse.Namespace(**usual))
    if task.benchmark not in place.questions:
        say(console, f"{task.policy}: {task.benchmark} not asked: give --questions {task.benchmark}=FILE")
        return 1
    return have_judged(request_of(place, task), asked, python, place.tools.get(task.benchmark), task.annotator)


def _compare(console: Console, place: "Place", table: "Table", python: str | None) -> int:
    """The win rates between the table's policies, once all of them have answered."""
    from nemo_sspo.artifacts.store import is_published
    from nemo_sspo.config.benchmarks import WinRatesRequest
    from nemo_sspo.launch.benchmark import GenerationFailed, compare, rollout_python
    from nemo_sspo.reproduce.needs import answers_of

    answers = {str(policy): place.answers(policy, "own") for policy in answers_of(table)["own"]}
    if absent := [name for name, folder in answers.items() if not is_published(folder)]:
        say(console, f"not compared before {', '.join(absent)} have answered")
        return 1
    run = next(iter(place.runs.values()))
    request = WinRatesRequest(
        answers={name: str(folder) for name, folder in answers.items()}, oracle=run.oracle, output=str(place.matrix)
    )
    try:
        with console.status(f"{len(answers)} policies are compared") as status:
            compare(
                request,
                run.cluster,
                rollout_python(run.cluster, python),
                lambda state: status.update(f"{state['done']}/{state['total']} {state['unit']} {state['note']}"),
            )
    except GenerationFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0
