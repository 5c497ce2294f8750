from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist

from nemo_sspo.errors import Interrupted, UserError
from nemo_sspo.megatron.runtime import rendezvous
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError, run_forked
from nemo_sspo.megatron.runtime.rendezvous import Node, announce, find
from tests.megatron.runtime.world_sum import answer_in, my_rank, sum_over_all_ranks
from tests.processes import is_running
from tests.waiting import wait_until

TIMEOUT = 30.0


def test_results_come_in_rank_order_and_collectives_work() -> None:
    def rank() -> tuple[int, float, str]:
        dist.init_process_group("gloo")
        value = torch.tensor(float(dist.get_rank() + 1))
        dist.all_reduce(value)
        return dist.get_rank(), value.item(), os.environ["LOCAL_RANK"]

    assert run_forked(rank, 3, timeout=TIMEOUT) == [(0, 6.0, "0"), (1, 6.0, "1"), (2, 6.0, "2")]


def test_tensors_come_back_whole() -> None:
    (result,) = run_forked(lambda: torch.arange(1_000_000), 1, timeout=TIMEOUT)
    assert torch.equal(result, torch.arange(1_000_000))


def test_one_failure_ends_the_others_and_tells_only_its_own_story() -> None:
    def rank() -> None:
        if my_rank() == 1:
            raise ValueError("the story")
        time.sleep(1000)

    started = time.monotonic()
    with pytest.raises(ForkedRanksError, match="1 of 3 ranks failed") as error:
        run_forked(rank, 3, timeout=TIMEOUT)
    assert time.monotonic() - started < 15
    assert "--- rank 1" in str(error.value)
    assert "the story" in str(error.value)
    assert "rank 0" not in str(error.value)


def test_what_a_killed_rank_started_ends_with_it(tmp_path: Path) -> None:
    def rank() -> None:
        if my_rank() == 0:
            helper = subprocess.Popen(["sleep", "1000"])
            (tmp_path / "helper").write_text(str(helper.pid))
            time.sleep(1000)
        wait_until((tmp_path / "helper").exists)
        raise ValueError("the story")

    with pytest.raises(ForkedRanksError, match="the story"):
        run_forked(rank, 2, timeout=TIMEOUT)
    assert not is_running(int((tmp_path / "helper").read_text()))


def test_wrong_input_found_by_a_rank_is_one_line() -> None:
    def rank() -> None:
        if my_rank() == 1:
            raise UserError("row 3: no such token")
        time.sleep(1000)

    with pytest.raises(UserError, match=r"^row 3: no such token$"):
        run_forked(rank, 2, timeout=TIMEOUT)


def test_a_hang_is_reported_with_the_place_where_it_hangs() -> None:
    def rank() -> None:
        if my_rank() == 1:
            hanging_here()

    def hanging_here() -> None:
        time.sleep(1000)

    with pytest.raises(ForkedRanksError, match=r"1 of 2 ranks no answer within 8 s") as error:
        run_forked(rank, 2, timeout=8.0)  # a busy machine needs some of it for rank 0
    assert "hanging_here" in str(error.value)


def test_a_crash_is_reported_with_its_signal_and_place() -> None:
    def crashing_here() -> None:
        ctypes.string_at(0)

    with pytest.raises(ForkedRanksError, match=f"exit code -{signal.SIGSEGV.value}") as error:
        run_forked(crashing_here, 1, timeout=TIMEOUT)
    assert "crashing_here" in str(error.value)


def test_no_thread_of_a_failed_call_is_left_to_be_forked() -> None:
    """A fork copies the locks that other threads hold at that moment, and nobody is there to release them."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def fail() -> None:
        raise ValueError

    before = threads()
    with pytest.raises(ForkedRanksError) as kept:  # and with it the frames of the call
        run_forked(fail, 1, timeout=TIMEOUT)
    assert kept.value is not None
    assert threads() == before
    assert run_forked(threads, 2, timeout=TIMEOUT) == [1, 1]


def test_an_unpicklable_result_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(ForkedRanksError, match="pickle"):
        run_forked(lambda: lambda: None, 1, timeout=TIMEOUT)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_ranks_die_with_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import os, time
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
def rank():
    open(os.path.join({str(tmp_path)!r}, str(os.getpid())), "w").close()
    time.sleep(1000)
run_forked(rank, 2, timeout=None)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60, "the start of both ranks")
    children = [int(path.name) for path in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, children)), 60, "the end of both ranks")


def test_a_rank_never_collects_what_the_parent_left_behind() -> None:
    """A gloo group of the parent waits, when it is destroyed, for threads that the fork did not copy."""
    gc.collect()
    gc.disable()  # or the parent might collect the cycle before the fork
    try:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        garbage: list[object] = [dist.new_group([0])]
        garbage.append(garbage)
        dist.destroy_process_group()
        del garbage
        assert run_forked(gc_collect_and_rank, 2, timeout=TIMEOUT) == [0, 1]
    finally:
        gc.enable()


class _EndsAnyOtherProcess:
    def __init__(self) -> None:
        self._pid, self._itself = os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self._pid:
            os._exit(7)


def test_what_runs_in_a_rank_right_after_the_fork_collects_nothing() -> None:
    """filelock makes objects in each child before any code of ours runs; they set off a collection of the parent's."""
    if not _hooks:
        os.register_at_fork(before=lambda: _hooks[0](), after_in_child=lambda: _hooks[1]())
    enough = 2 * gc.get_threshold()[0]
    _hooks[:] = (_EndsAnyOtherProcess, lambda: [[] for _ in range(enough)])
    try:
        assert run_forked(my_rank, 2, timeout=30) == [0, 1]
    finally:
        _hooks[:] = (lambda: None, lambda: None)
    assert gc.isenabled()


_hooks: list[Callable[[], object]] = []
"""What this process does before a fork, and its child after it; a hook that is registered stays."""


def gc_collect_and_rank() -> int:
    gc.collect()
    return my_rank()


def test_two_nodes_fork_their_share_and_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second node is a process of its own, and is there first."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    file = tmp_path / "rendezvous" / "iter_1.train.7.0"
    code = f"""
from pathlib import Path
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.megatron.runtime.rendezvous import Node
from tests.megatron.runtime.world_sum import sum_over_all_ranks
print(run_forked(sum_over_all_ranks, 4, timeout=60, node=Node(1, 2, Path({str(file)!r}))))
"""
    second = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    first = run_forked(sum_over_all_ranks, 4, timeout=60, node=Node(0, 2, file))
    printed, _ = second.communicate(timeout=60)
    assert first == [("1111", "0", "0", "4", "2", "0"), ("1111", "1", "1", "4", "2", "0")]
    assert answer_in(printed) == "[('1111', '2', '0', '4', '2', '1'), ('1111', '3', '1', '4', '2', '1')]"


def test_a_node_whose_first_one_never_comes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "RENDEZVOUS_SECONDS", 0.3)
    with pytest.raises(TimeoutError, match=r"did not announce itself within 0\.3 s"):
        run_forked(my_rank, 2, timeout=TIMEOUT, node=Node(1, 2, tmp_path / "none"))


def test_a_rendezvous_is_never_seen_half_written(tmp_path: Path) -> None:
    announce(tmp_path / "deep" / "file", "n1", 4711)
    assert find(tmp_path / "deep" / "file", 1) == ("n1", 4711)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_what_asks_the_parent_to_stop_reaches_every_rank(tmp_path: Path, number: signal.Signals) -> None:
    def rank() -> None:
        signal.signal(signal.SIGUSR1, interrupted)
        (tmp_path / str(my_rank())).touch()
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        if my_rank() == 0:
            os.kill(os.getppid(), number)
        time.sleep(TIMEOUT)

    def interrupted(*_: object) -> None:
        raise Interrupted(f"saved by {my_rank()}")

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"saved by [01]"):
        run_forked(rank, 2, timeout=TIMEOUT)
    assert signal.getsignal(number) is before
