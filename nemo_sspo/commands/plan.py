"""The plan of a run for people: its steps or its Slurm jobs as a table, and any plan as a tree."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from nemo_sspo.artifacts.store import is_published
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.checks.elsewhere import not_checked
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.plan import Step
from nemo_sspo.launch.slurm.jobs import Job, job_name
from nemo_sspo.launch.slurm.report_step import is_done
from nemo_sspo.launch.totals import totals
from nemo_sspo.stages.runner.freshness import Freshness

_UNBROKEN = 240


def show_notes(experiment: Experiment) -> None:
    """Print what the user may not mean, where mistakes are printed: it stays out of what a pipe reads."""
    for note in (*notes(experiment), *not_checked(experiment)):
        print(f"note: {note}", file=sys.stderr)


def plan_table(steps: Sequence[Step]) -> Table:
    """One row per stage and iteration; shards of a stage share it."""
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "tasks", "environment", "ranks", "GPUs", "after", "publishes", "published"):
        table.add_column(heading, overflow="fold")
    names = {step.step_id: job_name(step) for step in steps}
    for name in dict.fromkeys(names.values()):
        tasks = [step for step in steps if names[step.step_id] == name]
        first = tasks[0]
        after = ", ".join(dict.fromkeys(names[parent] for step in tasks for parent in step.depends_on))
        target = str(first.output if len(tasks) == 1 else first.output.with_name("shard_*"))
        published = sum(is_published(step.output) for step in tasks)
        cells = (name, len(tasks), first.environment, first.ranks, first.gpus, after, target, published or "")
        table.add_row(*map(plain, cells))
    return table


def show_jobs(graph: Sequence[Job], freshness: Freshness, console: Console) -> None:
    """One row per job: what it asks for, where it runs, what it waits for."""
    table = Table(box=None, pad_edge=False)
    headings = ("job", "tasks", "nodes", "GPUs", "time", "partition", "environment", "after", "published")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for job in graph:
        place = job.environment.image or job.environment.python
        after = ", ".join(f"{item.job}{' (shard by shard)' if item.kind == 'aftercorr' else ''}" for item in job.after)
        published = sum(is_done(step, freshness) for step in job.steps)
        gpus = job.nodes * job.gpus_per_node
        asked = (len(job.shard_batches), job.nodes, gpus, job.resources.time or "-", job.resources.partition or "-")
        where = f"{job.environment_name}: {place}"
        table.add_row(*map(plain, (job.name, *asked, where, after, published or "")))
    print_wide(table, console)


def show_totals(experiment: Experiment) -> None:
    """What the run will take in all, below its plan."""
    for line in totals(experiment):
        print(line)


def show_graph(steps: Sequence[Step]) -> None:
    """The plan as a tree: a stage stands below the last of those it waits for; the others are named beside it."""
    parents = _parents(steps)
    depth: dict[str, int] = {}
    for name, above in parents.items():
        depth[name] = 1 + max((depth[parent] for parent in above), default=0)
    sizes = {name: sum(job_name(step) == name for step in steps) for name in parents}
    root = Tree("run")
    nodes: dict[str, Tree] = {}
    for name, above in parents.items():
        last = max(above, key=lambda parent: depth[parent], default=None)
        others = [parent for parent in above if parent != last]
        label = f"{name} x{sizes[name]}" if sizes[name] > 1 else name
        label += f"  (+ {', '.join(others)})" if others else ""
        nodes[name] = (nodes[last] if last else root).add(label)
    console = Console()
    (console if console.is_terminal else Console(width=_UNBROKEN)).print(root, markup=False, highlight=False)


def _parents(steps: Sequence[Step]) -> Mapping[str, list[str]]:
    """What each stage of each iteration waits for, in the order of the plan."""
    names = {step.step_id: job_name(step) for step in steps}
    parents: dict[str, dict[str, None]] = {}
    for step in steps:
        parents.setdefault(job_name(step), {}).update(dict.fromkeys(names[parent] for parent in step.depends_on))
    return {name: list(above) for name, above in parents.items()}


def plain(cell: object) -> Text:
    """A cell as it is: brackets in it are no markup."""
    return Text(str(cell))


def print_wide(table: Table, console: Console | None = None) -> None:
    """As wide as the terminal; unbroken lines into a file or pipe."""
    console = console or Console()
    (console if console.is_terminal else Console(width=_UNBROKEN)).print(table, highlight=False)
