"""lm-evaluation-harness: the command line of a task, and its score in the file that it writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from nemo_sspo.config.benchmarks import LM_EVAL_TASKS, LmEvalTask
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
    dtype: str,
    gpus: int,
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
    spread = f",tensor_parallel_size={gpus}" if backend == "vllm" else ",parallelize=True"
    model = f"pretrained={policy},dtype={dtype}{spread if gpus > 1 else ''}"
    arguments = [python, "-m", "lm_eval", "run", "--model", backend]
    arguments += ["--model_args", model, "--tasks", task.name, "--batch_size", "auto"]
    arguments += ["--num_fewshot", str(task.shots)] if task.shots is not None else []
    arguments += ["--device", device] if device else []
    arguments += ["--include_path", str(include)] if include else []
    return [*arguments, "--output_path", str(output)]


def read_scores(task: LmEvalTask, output: Path) -> list[Score]:
    """The scores of a task from the harness's results file: its reported metric, or every metric it has.

    Raises:
        UserError: there is no such file, or it lacks the task or the metric.
    """
    files = sorted(output.rglob("results_*.json"))
    if not files:
        raise UserError(f"{output}: lm_eval wrote no results file for {task.name}")
    results = json.loads(files[-1].read_bytes()).get("results", {})
    row = results.get(task.name) or json.loads(files[-1].read_bytes()).get("groups", {}).get(task.name)
    if row is None:
        raise UserError(f"{files[-1]}: no results of {task.name} (there are {', '.join(results) or 'none'})")
    metrics = [task.metric] if task.metric else [name for name in row if "," in name and "_stderr," not in name]
    missing = [metric for metric in metrics if metric not in row]
    if missing:
        raise UserError(f"{files[-1]}: {task.name} has no {missing[0]} (there are {', '.join(row)})")
    return [Score(task.name, metric, float(row[metric]), _stderr(row, metric)) for metric in metrics]


def _stderr(row: dict[str, object], metric: str) -> float | None:
    name, _, filter_ = metric.partition(",")
    value = row.get(f"{name}_stderr,{filter_}")
    return float(value) if isinstance(value, int | float) else None
