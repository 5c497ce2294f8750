"""What came of a run, as a table on a terminal and as summary.json: the page's facts, finished or not."""

import json
import os
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

_CAPTION = "seconds: the work of a stage, summed over its shards, without the start of its process"


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


def summary_table(facts: RunFacts) -> Table:
    """One column per iteration; facts that are not there yet are left blank."""
    iterations = [facts.of(iteration) for iteration in facts.iterations]
    said = [f"{step} failed: {reason}" for step, reason in facts.failed.items()]
    said += [str(facts.stopped)] if facts.stopped else []
    said += [f"changed in the run: {change}" for change in facts.changed]
    table = Table(
        title=f"{facts.name}: {len(iterations)} iterations",
        title_justify="left",
        caption=Text("\n".join([*said, _CAPTION])),
        caption_justify="left",
    )
    table.add_column("")
    for each in iterations:
        table.add_column(str(each.iteration), justify="right")
    columns = [iteration_rows(each) for each in iterations]
    for label in dict.fromkeys(label for rows in columns for label in rows):
        table.add_row(label, *(rows.get(label, "") for rows in columns))
    table.add_section()
    spent = [each.seconds for each in iterations]
    for stage in dict.fromkeys(stage for seconds in spent for stage in seconds):
        table.add_row(f"{stage} (s)", *(f"{seconds[stage]:.1f}" if stage in seconds else "" for seconds in spent))
    table.add_row("all stages (s)", *(f"{sum(seconds.values()):.1f}" for seconds in spent))
    return table


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
