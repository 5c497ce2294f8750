"""Which steps one process takes: shards of one stage and iteration, one after another, with their model loaded once.

A step stays the unit of publishing, progress, failure and resumption. A lane only saves what comes before the work:
an engine of 140 GB is loaded once per lane, not once per shard. What a shard holds does not depend on its lane. Pure.
"""

from collections.abc import Callable, Sequence
from math import ceil

from nemo_sspo.launch.plan import Step
from nemo_sspo.stages.runner.registry import STAGES

Lane = tuple[Step, ...]
"""Steps of one process, in the order in which it takes them."""


def lanes(steps: Sequence[Step], size: Callable[[Step], int]) -> list[Lane]:
    """Cut steps into lanes: at most `size` of a stage and iteration, which are its shards; one where each shard has a
    model of its own.

    Lanes and the steps in them keep the order of `steps`. `size` is asked once for each stage and iteration.
    """
    grouped: dict[tuple[str, int], list[Step]] = {}
    for step in steps:
        grouped.setdefault((step.stage, step.iteration), []).append(step)
    cut = []
    for group in grouped.values():
        length = max(1, size(group[0])) if _one_model(group[0]) else 1
        cut += [tuple(group[start : start + length]) for start in range(0, len(group), length)]
    return cut


def _one_model(step: Step) -> bool:
    return step.stage not in STAGES or STAGES[step.stage].one_model


def fair_size(unfinished: int, processes: int) -> int:
    """Shards of a lane, when so many processes share what is unfinished.

    Toward the end lanes get shorter by themselves, so that no process is left with many shards while others idle.
    """
    return ceil(unfinished / max(1, processes))
