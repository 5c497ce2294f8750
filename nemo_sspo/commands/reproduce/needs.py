"""What a table needs, for people: runs, checkpoints, judges and cost."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.commands.terminal import print_wide, say, table_of

if TYPE_CHECKING:
    from nemo_sspo.reproduce.cost import RunWork
    from nemo_sspo.reproduce.declarations import Paper, Table
    from nemo_sspo.reproduce.place import Place


def show_needs(console: Console, paper: "Paper", table: "Table", place: "Place", work: "Sequence[RunWork]") -> None:
    from nemo_sspo.reproduce.cost import summary
    from nemo_sspo.reproduce.needs import annotators_of, answers_of

    rows = [
        (
            each.experiment.run_dir,
            " ".join(paper.runs[each.name]),
            len(each.steps),
            len(each.missing),
            ", ".join(f"{count} of {donor}" for donor, count in each.shared.items()),
        )
        for each in work
    ]
    if rows:
        print_wide(table_of(("run", "settings", "steps", "to run", "shared"), rows), console)
        say(console, summary(work))
    if place.models:
        found = [
            (name, asked.policy, "licence to accept" if paper.checkpoints[name].gated else "open")
            for name, asked in place.models.items()
        ]
        print_wide(table_of(("checkpoint from outside", "weights", "access"), found), console)
    used = {*(run.policy for run in place.runs.values()), *(model.policy for model in place.models.values())}
    for hub in sorted({each.hub for each in paper.checkpoints.values() if each.gated} & used):
        say(console, f"gated: {hub} wants an account with its licence (HF_TOKEN), or --weights {hub}=DIRECTORY")
    judges = [
        (
            name,
            len(policies),
            place.questions.get(name, "-" if name == "lm-eval" else f"not given: --questions {name}=FILE"),
            *_judge(name, place, annotators_of(table)),
        )
        for name, policies in answers_of(table).items()
    ]
    if judges:
        print_wide(table_of(("benchmark", "policies", "questions", "judge", "key"), judges), console)


def _judge(name: str, place: "Place", annotators: Sequence[str]) -> tuple[str, str]:
    """Who judges, and whether the key is there."""
    if name in ("lm-eval", "own"):
        return ("lm_eval counts" if name == "lm-eval" else "none, or the oracle of the runs"), ""
    key = "OPENAI_API_KEY is set" if os.environ.get("OPENAI_API_KEY") else "OPENAI_API_KEY is not set"
    if name == "alpaca-eval":
        return ", ".join(annotators), key
    return str(place.tools.get(name, f"not given: --tool {name}=DIRECTORY")), key
