"""Shards in one word, as sbatch's --array and the step runner's --shard take them: ``0-3,7``."""

import re
from collections.abc import Sequence

_RANGES = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


def shard_ranges(shards: Sequence[int]) -> str:
    """The word for some shards, in ascending order."""
    ranges: list[list[int]] = []
    for shard in sorted(shards):
        if ranges and shard == ranges[-1][1] + 1:
            ranges[-1][1] = shard
        else:
            ranges.append([shard, shard])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def shards_in(word: str) -> tuple[int, ...]:
    """The shards that a word names, in its order.

    Raises:
        ValueError: it is no such word.
    """
    ends = [part.partition("-") for part in word.split(",")]
    ranges = [range(int(first), int(last or first) + 1) for first, _, last in ends if _RANGES.fullmatch(word)]
    if not ranges or not all(ranges):
        raise ValueError(f"{word!r}: expected shards as in 3 or 0-3,7")
    return tuple(shard for shards in ranges for shard in shards)
