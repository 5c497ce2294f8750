from __future__ import annotations

import os
import queue
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from megatron.core.dist_checkpointing.strategies import filesystem_async

from nemo_sspo.megatron.checkpoints.writer_queue import WriterQueue, forget_writers, serve_writers
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError, run_forked
from tests.processes import is_running, words_of
from tests.waiting import wait_until

TIMEOUT = 60.0
# Renamed in megatron-core 0.17.
NAMES = ("get_write_results_queue", "_get_write_results_queue")
get_queue = next(getattr(filesystem_async, name) for name in NAMES if hasattr(filesystem_async, name))


def server() -> psutil.Process:
    """The process behind the only queue of this one."""
    (found,) = [child for child in psutil.Process().children() if "spawn_main" in " ".join(words_of(child.pid))]
    return found


def test_answers_of_a_forked_writer_arrive_whole_and_in_order_without_a_reader() -> None:
    answers = [{0: ["written"]}, OSError(28, "No space left on device"), {0: [b"x" * 2**20]}]

    def rank() -> list[object]:
        answering = WriterQueue()
        if (writer := os.fork()) == 0:
            for answer in answers:
                answering.put(answer)
            os._exit(0)
        os.waitpid(writer, 0)
        found = [answering.get_nowait() for _ in answers]
        with pytest.raises(queue.Empty):
            answering.get_nowait()
        return found

    (found,) = run_forked(rank, 1, timeout=TIMEOUT)
    assert found[0] == answers[0]
    assert repr(found[1]) == repr(answers[1])
    assert found[2] == answers[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_its_process_ends_with_a_rank_that_dies(tmp_path: Path) -> None:
    def rank() -> None:
        serve_writers()
        (tmp_path / "server").write_text(str(server().pid))
        os._exit(9)

    with pytest.raises(ForkedRanksError, match="exit code 9"):
        run_forked(rank, 1, timeout=TIMEOUT)
    pid = int((tmp_path / "server").read_text())
    wait_until(lambda: not is_running(pid), 10, "the end of the rank's process")


def test_a_signal_to_the_ranks_whole_group_leaves_it_at_work() -> None:
    """torchrun sends SIGTERM so, and Slurm SIGUSR1 where it does not know a job's processes by their cgroup; the rank
    saves its state after that."""

    def rank() -> object:
        os.setpgid(0, 0)
        answering = WriterQueue()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
            os.killpg(0, number)
        time.sleep(0.2)
        answering.put("written")
        return answering.get_nowait()

    assert run_forked(rank, 1, timeout=TIMEOUT) == ["written"]


def test_megatron_takes_it_and_it_holds_no_torch() -> None:
    def rank() -> tuple[bool, bool, bool]:
        serve_writers()
        mine = get_queue()
        mine.put({})
        loads_torch = any("torch" in mapped.path for mapped in server().memory_maps())
        pid = server().pid
        forget_writers()
        is_kept = filesystem_async._results_queue is not None
        del mine
        return loads_torch, is_kept, is_running(pid)

    assert run_forked(rank, 1, timeout=TIMEOUT) == [(False, False, False)]
