"""Kill every process that this one has started, at once and without warning, as a lost node would."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from nemo_sspo.launch.local.guard import descendants

_POLL_SECONDS = 0.02


@dataclass
class Cut:
    """Whether the condition of an interruption came true, and everything was killed."""

    happened: bool = False


@contextmanager
def killed_when(condition: Callable[[], bool]) -> Iterator[Cut]:
    """SIGKILL to every process below this one while `condition` holds and the block is under way."""
    cut, over = Cut(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if condition():
                cut.happened = True
                _kill_all()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield cut
    finally:
        over.set()
        thread.join()


def _kill_all() -> None:
    """Until none is left: one may have started another in the meantime."""
    while below := descendants(os.getpid()):
        for process in below:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
