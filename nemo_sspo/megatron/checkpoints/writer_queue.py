"""The queue through which Megatron's checkpoint writers answer, served by a small process that ends with this one.

Megatron's own is served by a process that imports torch, because answers are unpickled there: more than a second of
every rank's first save, and 280 MB for as long as the rank lives. It also outlives a rank that is killed. Here the
answers pass as bytes, and the kernel ends the process with the rank.
"""

from __future__ import annotations

import os
import pickle
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async

from nemo_sspo.megatron.runtime.parent_death import serve_to_the_end_of


class WriterQueue:
    """What Megatron asks of its queue: `put` in a forked writer, `get_nowait` in the process that made the queue."""

    def __init__(self) -> None:
        # Spawned, because gloo's threads hold locks that a fork would copy.
        manager = SyncManager(ctx=get_context("spawn"))
        manager.start(serve_to_the_end_of, (os.getpid(),))
        self._queue = manager.Queue()  # keeps the manager

    def put(self, answer: Any) -> None:
        """Send an answer of any size; no reader needs to wait for it."""
        self._queue.put(pickle.dumps(answer))

    def get_nowait(self) -> Any:
        """The oldest answer.

        Raises:
            queue.Empty: there is none.
        """
        return pickle.loads(self._queue.get_nowait())


def serve_writers() -> None:
    """Have this process's checkpoint writers answer through a `WriterQueue`. Call it in the main thread."""
    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = WriterQueue()


def forget_writers() -> None:
    """End the queue: ranks forked from this process would all read from it, and mix up answers."""
    filesystem_async._results_queue = None
