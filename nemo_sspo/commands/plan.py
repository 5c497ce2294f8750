"""The plan of a run for people: its steps or its Slurm jobs as a table, and any plan as a tree."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.tree import Tree

from nemo_sspo.artifacts.store import is_published
from nemo_sspo.commands.terminal import print_wide, say, table_of
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


def show_steps(steps: Sequence[Step], console: Console | None = None) -> None:
    """One row per stage and iteration, which its shards share, and where it all lands."""
    names = {step.step_id: job_name(step) for step in steps}
    rows = []
    for name in dict.fromkeys(names.values()):
        tasks = [step for step in steps if names[step.step_id] == name]
        first = tasks[0]
        parents = dict.fromkeys(names[parent] for step in tasks for parent in step.depends_on)
        published = sum(is_published(step.output) for step in tasks)
        after = ", ".join(_seen_from(name, parent) for parent in parents)
        rows.append((name, len(tasks), first.environment, first.ranks, first.gpus or "", published or "", after))
    print_wide(table_of(("step", "tasks", "in", "ranks", "GPUs", "done", "after"), rows), console)


def show_jobs(graph: Sequence[Job], freshness: Freshness, console: Console) -> None:
    """One row per job: what it asks for and what it waits for; then where they run."""
    rows = []
    partitions = {job.resources.partition or "-" for job in graph}
    for job in graph:
        parents = [f"{_seen_from(job.name, item.job)}{'*' if item.kind == 'aftercorr' else ''}" for item in job.after]
        published = sum(is_done(step, freshness) for step in job.steps)
        gpus = job.nodes * job.gpus_per_node
        asked = (len(job.shard_batches), job.nodes, gpus or "", job.resources.time or "-")
        partition = (job.resources.partition or "-") if len(partitions) > 1 else ""
        rows.append((job.name, *asked, partition, published or "", ", ".join(parents)))
    headings = ("job", "tasks", "nodes", "GPUs", "time", "partition", "done", "after")
    print_wide(table_of(headings, rows), console)
    if any(item.kind == "aftercorr" for job in graph for item in job.after):
        say(console, "*: shard by shard", hanging=2)
    if partitions != {"-"} and len(partitions) == 1:
        say(console, f"partition: {next(iter(partitions))}", hanging=2)
    for place, stages in _places(graph).items():
        say(console, f"{place} ({', '.join(stages)})", hanging=2)


def _places(graph: Sequence[Job]) -> dict[str, list[str]]:
    """Stages by the environment and image, or Python, that they run in."""
    places: dict[str, list[str]] = {}
    for job in graph:
        place = f"{job.environment_name}: {job.environment.image or job.environment.python}"
        if (stage := job.name.rpartition(".")[2]) not in places.setdefault(place, []):
            places[place].append(stage)
    return places


def _seen_from(name: str, parent: str) -> str:
    """The parent's name, without the iteration where both are of the same."""
    iteration, dot, stage = parent.partition(".")
    return stage if dot and name.startswith(f"{iteration}.") else parent


def show_totals(experiment: Experiment) -> None:
    """What the run will take in all, below its plan."""
    console = Console()
    for line in totals(experiment):
        say(console, line, hanging=2)


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
