"""lm-evaluation-harness: the command line of a task, and its score in the file that it writes."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nemo_sspo.config.benchmarks import LM_EVAL_TASKS, LmEvalTask
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.errors import UserError


class Score(NamedTuple):
    """One number of one task."""

    task: str
    metric: str
    value: float
    stderr: float | None


def chosen_tasks(names: Sequence[str] | None) -> list[LmEvalTask]:
    """The leaderboard's tasks, or those named; one it does not have keeps the shots and metric of its own file."""
    known = {task.name: task for task in LM_EVAL_TASKS}
    return [known.get(name) or LmEvalTask(name, None, "") for name in names or known]


def command(
    task: LmEvalTask,
    *,
    python: str,
    policy: str,
    backend: Literal["hf", "vllm"],
    engine: VllmEngine,
    on_cpu: bool,
    device: str | None,
    include: Path | None,
    output: Path,
) -> list[str]:
    """The harness's command line for one task. Its seeds are left at the harness's own, those of published numbers.

    Raises:
        UserError: the policy's path has a comma, which would end it there.
    """
    if "," in policy:
        raise UserError(f"{policy}: lm_eval separates its arguments by commas; rename the directory, or link to it")
    settings = _vllm_settings(engine, on_cpu) if backend == "vllm" else _hf_settings(engine)
    model = ",".join(f"{name}={value}" for name, value in {"pretrained": policy, **settings}.items())
    arguments = [python, "-m", "lm_eval", "run", "--model", backend]
    arguments += ["--model_args", model, "--tasks", task.name, "--batch_size", "auto"]
    arguments += ["--num_fewshot", str(task.shots)] if task.shots is not None else []
    arguments += ["--device", device] if device else []
    arguments += ["--include_path", str(include)] if include else []
    return [*arguments, "--output_path", str(output)]


def _vllm_settings(engine: VllmEngine, on_cpu: bool) -> dict[str, object]:
    """The engine as the run had it, as far as one line of text can say; its weights are not quantized."""
    settings: dict[str, object] = {"dtype": engine.dtype, "tensor_parallel_size": engine.tensor_parallel}
    if on_cpu:  # its kernels are not compiled, and its memory is bounded by a variable
        settings |= {"dtype": "float32" if engine.dtype == "auto" else engine.dtype, "enforce_eager": True}
    else:
        settings |= {"gpu_memory_utilization": engine.gpu_memory_utilization, "enforce_eager": engine.enforce_eager}
    return settings | {
        name: value
        for name, value in engine.extra.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and "," not in value)
    }


def _hf_settings(engine: VllmEngine) -> dict[str, object]:
    return {"dtype": engine.dtype} | ({"parallelize": True} if engine.tensor_parallel > 1 else {})


def read_scores(task: LmEvalTask, output: Path) -> list[Score]:
    """The scores of a task from the harness's results file: its reported metric, or every metric it has.

    A group that aggregates nothing has none of its own: its subtasks' scores are given, as they are for a tag.

    Raises:
        UserError: there is no such file, it lacks the task or the metric, or what it has is no finite number.
    """
    files = sorted(output.rglob("results_*.json"))
    if not files:
        raise UserError(f"{output}: lm_eval wrote no results file for {task.name}")
    found = json.loads(files[-1].read_bytes())
    rows: dict[str, Any] = found.get("groups", {}) | found.get("results", {})
    subtasks: dict[str, list[str]] = found.get("group_subtasks", {})
    if task.name not in rows and task.name not in subtasks:
        if not rows:
            raise UserError(f"{files[-1]}: no results of {task.name}")
        subtasks = {task.name: [name for name in rows if not subtasks.get(name)]}  # of a tag, all that was run
    return _scores(task, rows, subtasks, files[-1])


def _scores(task: LmEvalTask, rows: dict[str, Any], subtasks: dict[str, list[str]], file: Path) -> list[Score]:
    """Scores of a task, or of the subtasks of one that has none of its own."""
    row, parts = rows.get(task.name, {}), subtasks.get(task.name, [])
    metrics = [name for name in row if "," in name and "_stderr," not in name]
    if not metrics and parts:
        return [score for part in parts for score in _scores(task._replace(name=part), rows, subtasks, file)]
    if not metrics:
        raise UserError(f"{file}: {task.name} has no score at all; see its metric_list, or its group's")
    if task.metric and task.metric not in row:
        raise UserError(f"{file}: {task.name} has no {task.metric} (there are {', '.join(row)})")
    chosen = [task.metric] if task.metric else metrics
    return [
        Score(task.name, metric, _finite(row[metric], task, metric, file), _stderr(row, metric)) for metric in chosen
    ]


def _finite(value: object, task: LmEvalTask, metric: str, file: Path) -> float:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise UserError(f"{file}: {metric} of {task.name} is {value!r}, which is no score")


def _stderr(row: dict[str, object], metric: str) -> float | None:
    name, _, filter_ = metric.partition(",")
    value = row.get(f"{name}_stderr,{filter_}")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
