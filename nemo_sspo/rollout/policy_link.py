"""A path to the policy for the engine that is the same in every iteration.

vLLM keys what it has compiled by the path of the model (`ModelConfig.compute_hash`, 0.32), and every iteration's policy
has another: each of its engines would compile for a minute or two. Through a link of constant name the second
iteration's engines find what the first one's have compiled.

A node may serve several policies at once, so there are several names; engines of one policy share one.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from nemo_sspo.artifacts.node_folder import make_node_folder

NAMES = 64
_held: list[int] = []
"""Locks of names, for as long as this process and those that it starts live."""


def constant_name(policy: Path) -> Path:
    """A link to `policy`; its own path where no name is free."""
    folder, target = make_node_folder() / "policies", str(policy.resolve())
    folder.mkdir(exist_ok=True)
    for number in range(NAMES):
        link = folder / str(number)
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if _points_at(link, lock, target):
            _held.append(lock)
            return link
        os.close(lock)
    return policy


def _points_at(link: Path, lock: int, target: str) -> bool:
    """Whether the name points to this policy; an unused name is first made to."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # immediately where this process holds the lock
        return link.is_symlink() and os.readlink(link) == target
    return False
