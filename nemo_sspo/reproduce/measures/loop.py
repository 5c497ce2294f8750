"""What a run has measured of itself: time and memory, margins by similarity, win rates on held-out prompts."""

import json
from collections.abc import Sequence

from nemo_sspo.artifacts.diagnostics import read_diagnostics
from nemo_sspo.artifacts.facts.evaluation import EvaluationFacts
from nemo_sspo.artifacts.layout import DIAGNOSTICS, VOLATILE, RunLayout
from nemo_sspo.artifacts.published import PublishedStep, published_steps
from nemo_sspo.reproduce.declarations import CostColumn, HeldOutColumn, MarginColumn
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

_GB = 1e9 / 2**30
_STEP_TIMINGS = "steps.jsonl"


def cost(place: Place, cell: Cell) -> float:
    """Of a phase: the clock time of its stages added up, or the most memory of a GPU in one of them, in GB."""
    assert isinstance(cell.column, CostColumn)
    stages = [_steps(place, cell, stage) for stage in cell.column.stages]
    if cell.column.value != "gpu_memory_gb":
        return sum(map(_seconds, stages)) / (60 if cell.column.value == "minutes" else 1)
    if not place.runs[_run(cell)].cluster.has_gpus:
        raise Missing("measured on a GPU alone")
    return max(_peak_gib(steps) for steps in stages) / _GB


def margin(place: Place, cell: Cell) -> float:
    """Mean margin 2 |P - 1/2| of the pairs of responses of some similarity, after the row's gate."""
    column = cell.column
    assert isinstance(column, MarginColumn)
    (step,) = _steps(place, cell, "diagnose")
    tables = read_diagnostics(step.file(DIAGNOSTICS)).similarity_margin
    table = next((each for each in tables if each.gate == cell.row.gate), None)
    if table is None:
        raise Missing(f"no gate {cell.row.gate} in the diagnosis")
    bins = [each for each in table.bins if column.low - 1e-9 <= each.low and each.high <= column.high + 1e-9]
    pairs = sum(each.count for each in bins)
    if not pairs:
        raise Missing("no such pairs")
    return sum(each.count * (each.mean_margin or 0.0) for each in bins) / pairs


def held_out(place: Place, cell: Cell) -> float:
    """The oracle's win rate on held-out prompts."""
    assert isinstance(cell.column, HeldOutColumn)
    (step,) = _steps(place, cell, "evaluate")
    wins = step.facts(EvaluationFacts).wins
    return wins[cell.column.value.removeprefix("win_vs_")].mean


def _run(cell: Cell) -> str:
    assert cell.policy is not None
    return cell.policy.name


def _steps(place: Place, cell: Cell, stage: str) -> list[PublishedStep]:
    assert cell.policy is not None
    layout = RunLayout(place.runs[_run(cell)].run_dir)
    found = [
        step
        for step in published_steps(layout)
        if step.manifest.stage == stage and step.manifest.iteration == cell.policy.iteration
    ]
    if not found:
        raise Missing(f"{stage} of iteration {cell.policy.iteration} has not run")
    return found


def _seconds(steps: Sequence[PublishedStep]) -> float:
    """Of a stage, on the clock: its shards run beside each other."""
    return (max(step.ended for step in steps) - min(step.started for step in steps)).total_seconds()


def _peak_gib(steps: Sequence[PublishedStep]) -> float:
    timings = [step.manifest.timings for step in steps]
    for step in steps:
        file = step.path / VOLATILE / _STEP_TIMINGS
        timings += [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    found = [each[name] for each in timings for name in ("peak_gpu_memory_gib", "peak_memory_gib") if name in each]
    if not found:
        raise Missing("no step has measured it")
    return max(found)
