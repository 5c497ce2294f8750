"""Which steps one process takes: shards of one stage and iteration, one after another, with their model loaded once.

A step stays the unit of publishing, progress, failure and resumption. A shard batch only saves what comes before the
work: an engine of 140 GB is loaded once per batch, not once per shard. A shard's content does not depend on its batch.
Pure.
"""

from collections.abc import Callable, Sequence
from math import ceil

from nemo_sspo.launch.plan import Step
from nemo_sspo.stages.runner.registry import STAGES

ShardBatch = tuple[Step, ...]
"""Steps of one process, in the order in which it takes them."""


def shard_batches(steps: Sequence[Step], size: Callable[[Step], int]) -> list[ShardBatch]:
    """Cut steps into shard batches: at most `size` shards of a stage and iteration, one where each has its own model.

    Batches and the steps in them keep the order of `steps`. `size` is asked once for each stage and iteration.
    """
    grouped: dict[tuple[str, int], list[Step]] = {}
    for step in steps:
        grouped.setdefault((step.stage, step.iteration), []).append(step)
    cut = []
    for group in grouped.values():
        length = max(1, size(group[0])) if STAGES[group[0].stage].one_model else 1
        cut += [tuple(group[start : start + length]) for start in range(0, len(group), length)]
    return cut


def fair_size(unfinished: int, processes: int) -> int:
    """Shards of a shard batch, when that many processes share the unfinished shards.

    Toward the end batches get shorter, so that no process is left with many shards while others idle.
    """
    return ceil(unfinished / max(1, processes))
