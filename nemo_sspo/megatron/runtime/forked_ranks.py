"""Run one function on the ranks of this machine over gloo: import once, fork them, collect what they return.

Importing NeMo costs seconds per process; forked children share the parent's imports, so four ranks start in about a
second. CPU only: a CUDA context does not survive a fork, and torchrun or Slurm start the ranks there. Several machines
can do so together: each forks its own ranks, and all meet at the first one's store.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch

from nemo_sspo.errors import Interrupted, UserError
from nemo_sspo.megatron.runtime.parent_death import die_with
from nemo_sspo.megatron.runtime.rendezvous import THIS_MACHINE, Node, meet

# A rank that fails leaves the others blocked in a collective: they get this long to fail by themselves and
# report their own errors, then they are killed.
_GRACE_SECONDS = 2.0
# A rank that has answered gets this long to exit: it may join its own processes or flush.
_EXIT_SECONDS = 10.0
_POLL_SECONDS = 0.5


class ForkedRanksError(RuntimeError):
    """At least one rank failed or the time ran out; the message holds the traceback or stack of each such rank."""


@dataclass
class _Rank:
    process: BaseProcess
    pipe: Connection
    stack_file: Path
    has_answered: bool = False
    result: Any = None
    # Its traceback, how it died, what is wrong with the input, or that it saved its state and left.
    failure: str | UserError | Interrupted | None = None


def run_forked(
    fn: Callable[[], Any], world_size: int, *, timeout: float | None, node: Node = THIS_MACHINE
) -> list[Any]:
    """Call `fn()` in `world_size` forked processes and return their results, in rank order.

    Each process has RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, so that
    `torch.distributed.init_process_group("gloo")` works without arguments; `fn` calls it itself. Results travel by
    pickle. `timeout` is in seconds for all ranks together; None waits for ever. Ranks die with the parent. SIGUSR1
    and SIGTERM reach the ranks as SIGUSR1.

    With a `node` of several, these are the ranks of this node alone, an equal share of `world_size`.

    Raises:
        UserError: a rank raised one.
        TimeoutError: the nodes did not find each other.
        Interrupted: a rank raised one.
        ForkedRanksError: a rank raised, died, or did not return in time. All ranks are dead by then.
    """
    if torch.cuda.is_initialized():
        raise RuntimeError("run_forked: CUDA is initialised in this process, and a CUDA context cannot be forked")
    store, local = None, range(node.rank * world_size // node.count, (node.rank + 1) * world_size // node.count)
    with tempfile.TemporaryDirectory(prefix="forked_ranks.") as folder:
        ranks: list[_Rank] = []
        try:
            for rank in local:
                ranks.append(_start(fn, rank, local, world_size, Path(folder) / f"{rank}.stack"))
            # Only after the forks, because the store is a thread, and a fork may copy a lock it holds.
            store, host, port = meet(node)
            with _signals_passed_on(ranks):
                for started in ranks:
                    started.pipe.send((host, port))
                timed_out = _collect(ranks, timeout)
        finally:
            _kill(ranks)
            del store  # also where an exception keeps this frame: the next call must fork without its thread
        failures = _failures(ranks)
    for started in ranks:
        if isinstance(started.failure, UserError | Interrupted):
            raise started.failure
    if failures:
        reason = f"no answer within {timeout:g} s" if timed_out else "failed"
        raise ForkedRanksError(f"{len(failures)} of {len(local)} ranks {reason}\n" + "\n".join(failures))
    return [rank.result for rank in ranks]


@contextmanager
def _signals_passed_on(ranks: list[_Rank]) -> Iterator[None]:
    """Pass stop signals of this process on to its ranks. Only the main thread may set a signal handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(_signal: int, _frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.process.pid is not None and rank.process.is_alive():
                os.kill(rank.process.pid, signal.SIGUSR1)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(fn: Callable[[], Any], rank: int, local: range, world_size: int, stack_file: Path) -> _Rank:
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank - local.start,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": len(local),
        "GROUP_RANK": local.start // len(local),
        # torch's name for "the store at MASTER_PORT is already served": rank 0 must not try to listen there.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    parents_end, childs_end = multiprocessing.Pipe()
    # Not daemonic: a rank may start processes of its own (data loaders, checkpoint writers).
    process = multiprocessing.get_context("fork").Process(
        target=_rank_main,
        args=(fn, {name: str(value) for name, value in environment.items()}, childs_end, stack_file, os.getpid()),
        name=f"rank {rank}",
    )
    # What is still buffered would be printed once more by every child.
    sys.stdout.flush()
    sys.stderr.flush()
    with _no_collection():
        process.start()
    childs_end.close()
    return _Rank(process, parents_end, stack_file)


@contextmanager
def _no_collection() -> Iterator[None]:
    """What the parent left behind is not collected in a child: a gloo group's destructor waits for threads of the
    parent. A library's own work after a fork may set off a collection, so it is off before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rank_main(
    fn: Callable[[], Any], environment: dict[str, str], pipe: Connection, stack_file: Path, parent: int
) -> None:
    die_with(parent)
    gc.freeze()
    gc.enable()
    host, port = pipe.recv()
    os.environ.update(environment, MASTER_ADDR=host, MASTER_PORT=str(port))
    with stack_file.open("w") as stack:
        # A fatal signal writes the Python stack there: SIGABRT is how the parent asks a hanging rank where it is.
        faulthandler.enable(stack, all_threads=False)
        # One thread per rank: OpenMP's pool does not survive a fork, and the ranks share the cores anyway.
        torch.set_num_threads(1)
        try:
            answer = pickle.dumps((fn(), None))
        except (UserError, Interrupted) as error:
            answer = pickle.dumps((None, error))
        except BaseException:
            answer = pickle.dumps((None, traceback.format_exc()))
        pipe.send_bytes(answer)
        pipe.close()
        faulthandler.disable()


def _collect(ranks: list[_Rank], timeout: float | None) -> bool:
    """Receive answers until every rank has given one or a failed rank's grace is over. True if the time ran out."""
    deadline = None if timeout is None else time.monotonic() + timeout
    grace_ends = None
    while waiting := [rank for rank in ranks if not rank.has_answered]:
        now = time.monotonic()
        if grace_ends is not None and now > grace_ends:
            return False
        if deadline is not None and now > deadline:
            _ask_for_stacks(waiting)
            return True
        ready = wait([rank.pipe for rank in waiting], timeout=_POLL_SECONDS)
        for rank in waiting:
            if rank.pipe in ready:
                _receive(rank)
                if rank.failure is not None and grace_ends is None:
                    grace_ends = time.monotonic() + _GRACE_SECONDS
    return False


def _receive(rank: _Rank) -> None:
    rank.has_answered = True
    try:
        rank.result, rank.failure = pickle.loads(rank.pipe.recv_bytes())
    except EOFError:
        rank.process.join(_GRACE_SECONDS)
        rank.failure = f"died with exit code {rank.process.exitcode}\n{_stack(rank)}"


def _ask_for_stacks(ranks: list[_Rank]) -> None:
    for rank in ranks:
        if rank.process.pid is not None and rank.process.is_alive():
            os.kill(rank.process.pid, signal.SIGABRT)
    for rank in ranks:
        rank.process.join(_GRACE_SECONDS)
        rank.failure = f"was still running\n{_stack(rank)}"


def _stack(rank: _Rank) -> str:
    if not rank.stack_file.exists():
        return "it had not begun"
    return rank.stack_file.read_text().partition("\nExtension modules:")[0]


def _kill(ranks: list[_Rank]) -> None:
    for rank in ranks:
        if rank.has_answered:
            rank.process.join(_EXIT_SECONDS)
    for rank in ranks:
        if rank.process.is_alive():
            helpers = psutil.Process(rank.process.pid).children(recursive=True)
            rank.process.kill()
            # Checkpoint writers are processes of their own, which a killed rank cannot end.
            for helper in helpers:
                with suppress(psutil.NoSuchProcess):
                    helper.kill()
        rank.process.join()
        rank.pipe.close()


def _failures(ranks: list[_Rank]) -> list[str]:
    """One text per failed rank. Ranks that were killed because another failed first are left out."""
    return [f"--- {rank.process.name} {rank.failure}" for rank in ranks if rank.failure is not None]
