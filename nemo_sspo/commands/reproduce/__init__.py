"""``nemo-sspo reproduce PAPER TABLE``: the runs and judgements of a published table, and ours beside its numbers."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    from nemo_sspo.reproduce.cost import RunWork
    from nemo_sspo.reproduce.declarations import Paper, Table
    from nemo_sspo.reproduce.place import Place

_PORTIONS = "prompts=[first.jsonl,second.jsonl,third.jsonl]"


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command."""
    text = "make what a table or figure of a paper measures, and print it beside the published numbers"
    sub = commands.add_parser("reproduce", help=text, description=f"{text}. Without a table the papers' are listed.")
    sub.add_argument("paper", nargs="?", help="s-sppo or sppo")
    sub.add_argument("table", nargs="?", help="table-5, figure-3, ...")
    sub.add_argument("overrides", nargs="*", help="settings of every run as key=value; prompts=... must be given")
    sub.add_argument("--dry-run", action="store_true", help="list runs, judges, weights and cost, and what is there")
    sub.add_argument("--json", action="store_true", help="print the table as JSON")
    for option, meaning in (
        ("--weights", "where the weights of a hub id lie: HUB_ID=DIRECTORY"),
        ("--questions", "a benchmark's questions: alpaca-eval=FILE"),
        ("--tool", "the checkout of a judge: mt-bench=DIRECTORY"),
    ):
        sub.add_argument(option, action="append", default=[], metavar="NAME=PATH", help=meaning)
    sub.add_argument("--python", help="interpreter with vLLM (default: the runs' rollout environment)")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.set_defaults(command=reproduce)


def reproduce(options: argparse.Namespace) -> int:
    """List the tables; or say what one needs, make it unless it is a dry run, and show it."""
    from nemo_sspo.commands.reproduce.needs import show_needs
    from nemo_sspo.commands.reproduce.table import show_table
    from nemo_sspo.commands.reproduce.work import make
    from nemo_sspo.reproduce.papers_on_disk import load_paper, load_table, table_name
    from nemo_sspo.reproduce.show import as_data, measure

    console = Console()
    if options.table is None:
        return _list(console, options.paper)
    paper, name = load_paper(options.paper), table_name(options.paper, options.table)
    table = load_table(options.paper, name)
    place, work = _prepared(options, paper, table, name)
    if options.json:
        print(json.dumps(as_data(measure(place, table)), indent=1))
        return 0
    say(console, f"{paper.title} (arXiv {paper.arxiv}), {name}, {table.place}: {table.title}", "bold")
    if table.note:
        say(console, table.note)
    if options.dry_run:
        show_needs(console, paper, table, place, work)
    code = 0 if options.dry_run else make(console, table, place, work, options.python)
    show_table(console, table, measure(place, table))
    return code


def _list(console: Console, paper: str | None) -> int:
    from nemo_sspo.reproduce.papers_on_disk import load_table, papers, tables

    rows = [
        (name, table, load_table(name, table).title)
        for name in papers()
        for table in tables(name)
        if paper in (None, name)
    ]
    if not rows:
        raise UserError(f"{paper}: no such paper; one of {', '.join(papers())}")
    print_wide(table_of(("paper", "table", "what it shows"), rows), console)
    return 0


def _prepared(options: argparse.Namespace, paper: "Paper", table: "Table", name: str) -> "tuple[Place, list[RunWork]]":
    from nemo_sspo.launch.benchmark import plain_model
    from nemo_sspo.reproduce.cost import work_of
    from nemo_sspo.reproduce.needs import checkpoints_of, experiment_of, runs_of, steps_for
    from nemo_sspo.reproduce.place import Place

    weights = {hub: _absolute(path) for hub, path in _named(options.weights, "--weights").items()}
    overrides = list(options.overrides)
    if not any(given.startswith("prompts=") for given in overrides):
        if not options.dry_run and not options.json and runs_of(table):
            raise UserError(f"prompts are missing: give {_PORTIONS}, UltraFeedback's in the papers' three portions")
        overrides.append(_PORTIONS)
    runs = {run: experiment_of(paper, run, overrides, weights, options.config_dir) for run in runs_of(table)}
    declared = paper.checkpoints
    models = {
        name: plain_model(
            weights.get(declared[name].hub, declared[name].hub),
            name,
            [f"model={declared[name].model}", *overrides],
            options.config_dir,
        )
        for name in checkpoints_of(table)
    }
    questions = {key: Path(path) for key, path in _named(options.questions, "--questions").items()}
    tools = {key: Path(path) for key, path in _named(options.tool, "--tool").items()}
    place = Place(f"{options.paper}.{name}", runs, models, questions, tools)
    wanted = runs_of(table)
    return place, work_of(runs, {run: steps_for(experiment, wanted[run]) for run, experiment in runs.items()})


def _named(given: Sequence[str], option: str) -> dict[str, str]:
    for each in given:
        if not all(each.partition("=")[::2]):
            raise UserError(f"{option} {each}: write {option} NAME=PATH")
    return {name: path for name, _, path in (each.partition("=") for each in given)}


def _absolute(path: str) -> str:
    if not Path(path).is_dir():
        raise UserError(f"--weights {path}: no such directory")
    return path
