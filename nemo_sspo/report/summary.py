"""What came of a run, as a table on a terminal and as summary.json: the page's facts, finished or not."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import SelectionResult
from nemo_sspo.report.facts.evaluation import OPPONENTS
from nemo_sspo.report.facts.iteration import IterationFacts
from nemo_sspo.report.facts.run_facts import RunFacts
from nemo_sspo.report.iteration_rows import iteration_rows
from nemo_sspo.words import counted

_CAPTION = "seconds: the work of a stage, summed over its shards, without the start of its process"
_SECONDS = " (s)"
_BORDERS = 4
"""Characters around a cell and its left border: those of a table beyond its cells, with one fewer for each column."""


def summary(facts: RunFacts) -> dict[str, Any]:
    """All of summary.json: facts of every iteration that has begun, and of the preparation."""
    stop = facts.stopped
    return {
        "run": facts.name,
        "prompts": facts.prepared,
        "preparation_seconds": _seconds(facts.of(0)),
        "iterations": [_iteration(facts.of(iteration)) for iteration in facts.iterations],
        "failed": facts.failed,
        "changed": facts.changed,
        "stopped": None if stop is None else {"after_iteration": stop.iteration, "reason": stop.reason},
        "result": facts.result,
    }


def write_summary(layout: RunLayout, facts: RunFacts) -> Path:
    """Store the facts as summary.json of the run."""
    temporary = layout.summary.with_name(f".{layout.summary.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(summary(facts), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, layout.summary)
    return layout.summary


def summary_tables(facts: RunFacts, width: int) -> list[Table | Text]:
    """A title, one column per iteration, in as many tables as `width` asks for, and notes; unknown cells are blank."""
    iterations = [facts.of(iteration) for iteration in facts.iterations]
    columns = {each.iteration: iteration_rows(each) | _spent(each) for each in iterations}
    labels = list(dict.fromkeys(label for rows in columns.values() for label in rows))
    names = max(map(len, labels), default=0)
    size = max((len(cell) for rows in columns.values() for cell in rows.values()), default=0)
    most = max(1, (width - names - _BORDERS) // (size + _BORDERS - 1))
    parts = [list(columns)[start : start + most] for start in range(0, len(columns), most)]
    tables = [_table(labels, {i: columns[i] for i in part}) for part in parts if part]
    said = [f"changed in the run: {change}" for change in facts.changed]
    title = Text(f"{facts.name}: {counted(len(iterations), 'iteration')}")
    return [title, *tables, Text("\n".join([*said, _CAPTION]))]


def _table(labels: Sequence[str], columns: Mapping[int, Mapping[str, str]]) -> Table:
    table = Table()
    table.add_column("")
    for iteration in columns:
        table.add_column(str(iteration), justify="right")
    for label in labels:
        if not label.endswith(_SECONDS):
            table.add_row(label, *(rows.get(label, "") for rows in columns.values()))
    table.add_section()
    for label in labels:
        if label.endswith(_SECONDS):
            table.add_row(label, *(rows.get(label, "") for rows in columns.values()))
    return table


def _spent(each: IterationFacts) -> dict[str, str]:
    """Seconds by stage, and of all."""
    own = {f"{stage}{_SECONDS}": f"{seconds:.1f}" for stage, seconds in each.seconds.items()}
    return own | {f"all stages{_SECONDS}": f"{sum(each.seconds.values()):.1f}"}


def _iteration(each: IterationFacts) -> dict[str, Any]:
    pairs, evaluated, identity, reference = each.pairs, each.evaluated, each.identity, each.reference
    curve = each.curve if each.curve is not None and each.curve.finished else None
    best = evaluated.best_of_n if evaluated else None
    wins = {f"win_vs_{name}": evaluated.wins.get(name) if evaluated else None for name in OPPONENTS}
    wins["length_controlled_win_vs_base"] = evaluated.at_equal_length if evaluated else None
    return {
        "iteration": each.iteration,
        "prompts": each.sampled.prompts if each.sampled else 0,
        "responses": each.sampled.responses if each.sampled else 0,
        "pairs": pairs.pairs if pairs else None,
        "dropped": each.dropped or {},
        "margin_before": pairs.margin_before if pairs else None,
        "margin_after": pairs.margin_after if pairs else None,
        "similarity": pairs.similarity if pairs else None,
        "reference_source": reference.source if reference else None,
        "reference_difference": reference.largest_difference if reference else None,
        "steps": len(curve.steps) if curve else None,
        "loss_first": curve.first("loss") if curve else None,
        "loss_last": curve.last("loss") if curve else None,
        "step1_loss": identity.measured if identity else None,
        "step1_closed_form": identity.closed_form if identity else None,
        "step1_relative_error": identity.relative_difference if identity else None,
        **_selection(each.selection),
        **{key: value for name, win in wins.items() for key, value in _interval(name, win).items()},
        "best_of_n": best.n if best else None,
        **_interval("best_of_n_win_vs_base", best.win if best else None),
        "mean_tokens": evaluated.tokens.get("new") if evaluated else None,
        "base_mean_tokens": evaluated.tokens.get("base") if evaluated else None,
        "seconds": _seconds(each),
    }


def _selection(selection: SelectionResult | None) -> dict[str, Any]:
    return {
        "selection_candidates": len(selection.candidates) if selection else None,
        "selection_chosen_step": selection.candidates[selection.chosen].step if selection else None,
        "selection_last_step": selection.candidates[-1].step if selection else None,
        "selection_criterion": selection.criterion if selection else None,
        **_interval("selection_win", selection.by_criterion(selection.chosen) if selection else None),
        "selection_reason": selection.reason if selection else None,
    }


def _interval(name: str, win: Interval | None) -> dict[str, float | None]:
    return {
        name: win.mean if win else None,
        f"{name}_low": win.low if win else None,
        f"{name}_high": win.high if win else None,
    }


def _seconds(each: IterationFacts) -> dict[str, float]:
    return {stage: round(seconds, 3) for stage, seconds in each.seconds.items()}
