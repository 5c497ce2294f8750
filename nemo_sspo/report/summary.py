"""What came of a run, per iteration: read from the manifests of its artifacts alone, finished or not."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nemo_sspo.artifacts.knobs import knob_changes
from nemo_sspo.artifacts.layout import RunLayout, no_run
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.artifacts.published import published_steps, read_manifest
from nemo_sspo.artifacts.selection import EarlyStop, early_stop
from nemo_sspo.stages.runner.registry import STAGES

Facts = dict[str, Any]

_CAPTION = "seconds: the work of a stage, summed over its shards, without the start of its process"

_DROPPED = "dropped_"
_ENDS = ("", "_low", "_high")
_LENGTH_CONTROLLED = tuple(f"length_controlled_win_vs_base{end}" for end in _ENDS)
_SELECTED = ("candidates", "chosen_step", "last_step", "criterion", *(f"win{end}" for end in _ENDS), "reason")
_BEST_OF_N = ("best_of_n", *(f"best_of_n_win_vs_base{end}" for end in _ENDS))


def summarize(layout: RunLayout, failed: Mapping[str, str] | None = None) -> Facts:
    """Facts of every iteration that has begun, and of the preparation.

    Args:
        failed: steps that failed and have not begun again, and why.

    Raises:
        UserError: there is no run.
    """
    if not layout.root.is_dir():
        raise no_run(layout)
    iterations = sorted(int(path.name.removeprefix("iter_")) for path in layout.root.glob("iter_[0-9]*"))
    prompts, stop = read_manifest(layout.artifact("prepare_prompts")), early_stop(layout)
    return {
        "run": layout.root.name,
        "prompts": prompts.counts if prompts else {},
        "preparation_seconds": _seconds(layout, 0),
        "iterations": [_iteration(layout, iteration) for iteration in iterations if iteration > 0],
        "failed": dict(failed or {}),
        "changed": [str(change) for change in knob_changes(step.manifest for step in published_steps(layout))],
        "stopped": None if stop is None else {"after_iteration": stop.iteration, "reason": stop.reason},
        "result": _result(layout, iterations) if stop is None else stop.result,
    }


def _result(layout: RunLayout, iterations: Sequence[int]) -> int:
    """The newest policy that is exported; 0 is the base."""
    return max((i for i in iterations if read_manifest(layout.artifact("export", i)) is not None), default=0)


def write_summary(layout: RunLayout, facts: Facts) -> Path:
    """Store the facts as summary.json of the run."""
    temporary = layout.summary.with_name(f".{layout.summary.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, layout.summary)
    return layout.summary


def summary_table(facts: Facts) -> Table:
    """One column per iteration; facts that are not there yet are left blank."""
    iterations: Sequence[Facts] = facts["iterations"]
    stopped = facts["stopped"]
    end = EarlyStop(stopped["after_iteration"], stopped["reason"]) if stopped else None
    said = [f"{step} failed: {reason}" for step, reason in facts["failed"].items()] + ([str(end)] if end else [])
    said += [f"changed in the run: {change}" for change in facts["changed"]]
    table = Table(
        title=f"{facts['run']}: {len(iterations)} iterations",
        title_justify="left",
        caption=Text("\n".join([*said, _CAPTION])),
        caption_justify="left",
    )
    table.add_column("")
    for iteration in iterations:
        table.add_column(str(iteration["iteration"]), justify="right")
    for label, cell in _ROWS:
        cells = [cell(iteration) for iteration in iterations]
        if any(cells):
            table.add_row(label, *cells)
    table.add_section()
    for stage in STAGES:
        cells = [_number(iteration["seconds"].get(stage), ".1f") for iteration in iterations]
        if any(cells):
            table.add_row(f"{stage} (s)", *cells)
    table.add_row("all stages (s)", *[f"{sum(iteration['seconds'].values()):.1f}" for iteration in iterations])
    return table


def _iteration(layout: RunLayout, iteration: int) -> Facts:
    pairs = _counts(layout, "build_pairs", iteration)
    train = _counts(layout, "train", iteration)
    reference = _counts(layout, "reference_logps", iteration)
    selection = _counts(layout, "select_model", iteration)
    evaluation = _counts(layout, "evaluate", iteration)
    rollouts = [manifest.counts for manifest in _manifests(layout, "rollout", iteration)]
    return {
        "iteration": iteration,
        "prompts": sum(int(counts.get("prompts") or 0) for counts in rollouts),
        "responses": sum(int(counts.get("responses") or 0) for counts in rollouts),
        "pairs": pairs.get("pairs"),
        "dropped": {
            name.removeprefix(_DROPPED): count for name, count in pairs.items() if name.startswith(_DROPPED) and count
        },
        "margin_before": pairs.get("margin_before"),
        "margin_after": pairs.get("margin_after"),
        "similarity": pairs.get("similarity_mean"),
        "reference_source": reference.get("source"),
        "reference_difference": reference.get("largest_difference"),
        "steps": train.get("steps"),
        "loss_first": train.get("loss_first"),
        "loss_last": train.get("loss_last"),
        "step1_loss": train.get("step1_loss"),
        "step1_closed_form": train.get("step1_closed_form"),
        "step1_relative_error": _relative_error(train.get("step1_loss"), train.get("step1_closed_form")),
        **{f"selection_{name}": selection.get(name) for name in _SELECTED},
        **{
            f"win_vs_{name}{end}": evaluation.get(f"win_vs_{name}{end}")
            for name in ("base", "previous")
            for end in _ENDS
        },
        **{name: evaluation.get(name) for name in (*_LENGTH_CONTROLLED, *_BEST_OF_N)},
        "mean_tokens": evaluation.get("new_mean_tokens"),
        "base_mean_tokens": evaluation.get("base_mean_tokens"),
        "seconds": _seconds(layout, iteration),
    }


def _relative_error(measured: float | None, expected: float | None) -> float | None:
    if measured is None or expected is None:
        return None
    return abs(measured - expected) / abs(expected) if expected else abs(measured)


def _counts(layout: RunLayout, stage: str, iteration: int) -> Facts:
    manifest = read_manifest(layout.artifact(stage, iteration))
    return dict(manifest.counts) if manifest else {}


def _seconds(layout: RunLayout, iteration: int) -> dict[str, float]:
    """Seconds of each published stage, summed over its shards."""
    published = {
        # The prompts lie in one place for all iterations.
        stage: [manifest for manifest in _manifests(layout, stage, iteration) if manifest.iteration == iteration]
        for stage in STAGES
    }
    return {
        stage: round(sum(manifest.timings.get("seconds", 0.0) for manifest in manifests), 3)
        for stage, manifests in published.items()
        if manifests
    }


def _manifests(layout: RunLayout, stage: str, iteration: int) -> list[Manifest]:
    """Manifests of a stage, whether it has shards or not."""
    directory = layout.artifact(stage, iteration)
    found = [read_manifest(path) for path in (directory, *sorted(directory.glob("shard_*")))]
    return [manifest for manifest in found if manifest is not None]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _dropped(facts: Facts) -> str:
    reasons: dict[str, int] = facts["dropped"]
    if not reasons:
        return "0" if facts["pairs"] is not None else ""
    named = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())
    return f"{sum(reasons.values())} ({named})" if len(reasons) > 1 else named


def _change(first: str, second: str, form: str) -> Callable[[Facts], str]:
    def cell(facts: Facts) -> str:
        return "" if facts[first] is None else f"{_number(facts[first], form)} → {_number(facts[second], form)}"

    return cell


def _reference(facts: Facts) -> str:
    """Empty where the rollout's log-probs were not compared."""
    difference = facts["reference_difference"]
    return "" if difference is None else f"{facts['reference_source']} ({difference:.2g})"


def _win_rate(fact: str) -> Callable[[Facts], str]:
    def cell(facts: Facts) -> str:
        mean, low, high = (facts[f"{fact}{end}"] for end in _ENDS)
        if mean is None:
            return ""
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        return f"{mean:.3f}{interval}"

    return cell


def _chosen(facts: Facts) -> str:
    """Empty where an iteration has no choice."""
    step, last = facts["selection_chosen_step"], facts["selection_last_step"]
    return "" if step is None else f"step {step} of {last}, of {facts['selection_candidates']}"


_ROWS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("prompts", lambda facts: str(facts["prompts"] or "")),
    ("pairs", lambda facts: _number(facts["pairs"], "d")),
    ("dropped", _dropped),
    ("margin before → after the gate", _change("margin_before", "margin_after", ".4f")),
    ("similarity of a pair", lambda facts: _number(facts["similarity"], ".3f")),
    ("reference, rollout's off by (nats)", _reference),
    ("optimizer steps", lambda facts: _number(facts["steps"], "d")),
    ("loss first → last", _change("loss_first", "loss_last", ".4g")),
    ("preference loss at step 1", lambda facts: _number(facts["step1_loss"], ".7g")),
    ("its closed form", lambda facts: _number(facts["step1_closed_form"], ".7g")),
    ("relative difference", lambda facts: _number(facts["step1_relative_error"], ".1e")),
    ("checkpoint chosen", _chosen),
    ("its win rate when chosen", _win_rate("selection_win")),
    ("win rate vs base", _win_rate("win_vs_base")),
    ("the same at equal length", _win_rate("length_controlled_win_vs_base")),
    ("win rate vs previous", _win_rate("win_vs_previous")),
    ("best of n: n", lambda facts: _number(facts["best_of_n"], "d")),
    ("best of n, win rate vs base", _win_rate("best_of_n_win_vs_base")),
    ("tokens a response, base → new", _change("base_mean_tokens", "mean_tokens", ".1f")),
)
