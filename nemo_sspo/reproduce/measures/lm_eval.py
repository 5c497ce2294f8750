"""lm-evaluation-harness: the scores that `nemo-sspo benchmark lm-eval` published."""

import json
from statistics import fmean

from nemo_sspo.config.benchmarks import LM_EVAL_TASKS
from nemo_sspo.reproduce.declarations import LmEvalColumn
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

SCORES = "scores.json"


def value(place: Place, cell: Cell) -> float:
    """The task's score in percent, by the leaderboard's metric; or the mean of the leaderboard's six."""
    assert isinstance(cell.column, LmEvalColumn)
    assert cell.policy is not None
    file = place.answers(cell.policy, "lm-eval") / SCORES
    if not file.is_file():
        raise Missing("not run")
    metrics = {task.name: task.metric for task in LM_EVAL_TASKS}
    scores = json.loads(file.read_bytes())
    found = {row["task"]: row["value"] for row in scores if row["metric"] == metrics.get(row["task"])}
    tasks = list(metrics) if cell.column.value == "average" else [cell.column.value]
    if absent := [task for task in tasks if task not in found]:
        raise Missing(f"not run: {', '.join(absent)}")
    return 100 * fmean(found[task] for task in tasks)
