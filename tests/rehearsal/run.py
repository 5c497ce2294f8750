"""Rehearse a rank: fork, pretend, run the project's own functions, and hand back the ledger."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nemo_sspo.errors import Interrupted
from tests.megatron.available import available
from tests.rehearsal import cuda_runtime
from tests.rehearsal.case import Case, job_of
from tests.rehearsal.ledger import Ledger, Step


class RehearsalError(RuntimeError):
    """The rank died; the message is its traceback."""


def rehearse(case: Case, plant: Callable[[], None] | None = None) -> Ledger:
    """Train two steps on one rank of a layout, and tell what that took.

    With a checkpoint also: reference log-probs before, a state saved in the background after the first step, the final
    checkpoint and, on rank 0, whose state has all that it loads, a second attempt that resumes after the first step.

    `plant` is called in the process of the rank before it runs: for planted faults.

    To be called on a pretended H100 (``python -m tests.rehearsal ...``)::

        from nemo_sspo.config.load import load_experiment
        from tests.rehearsal.case import case_of
        from tests.rehearsal.run import rehearse

        experiment = load_experiment(["experiment=llama3-8b", "prompts=x", "oracle.path=x"])
        ledger = rehearse(case_of(experiment, Path("/models/llama"), rank=3))
        print(ledger.peak_bytes / 2**30)

    Raises:
        RehearsalError: whatever the rank raised.
    """
    import_everything()
    with tempfile.TemporaryDirectory(prefix="rehearsal.") as directory:
        if case.checkpoint is None:
            return in_fork(lambda: _train(case, Path(directory), plant))
        in_fork(lambda: _reference(case, Path(directory)))
        ledger = in_fork(lambda: _train(case, Path(directory), plant))
        if case.rank == 0:
            ledger = replace(ledger, resumed=in_fork(lambda: _resume(case, Path(directory))).steps)
        return ledger


def rehearse_and_resume(case: Case) -> Ledger:
    """`rehearse`, with a second attempt on any rank."""
    ledger = rehearse(case)
    return ledger if case.rank == 0 else replace(ledger, resumed=resumed_step(case))


def resumed_step(case: Case) -> list[Step]:
    """The step of a second attempt on a rank that is not the first, whose own state lacks what others write.

    Its replicas send the optimizer's state to the first of them, so that one is rehearsed until it has saved, and the
    rank resumes from there. None where that one has other weights, which are some of the experts.
    """
    parallel = case.parallel
    ranks_of_stage = parallel.world_size // parallel.pipeline
    writer = case.at(case.rank // ranks_of_stage * ranks_of_stage + case.rank % parallel.tensor)
    if parallel.expert > 1 and writer != case:
        return []
    import_everything()
    with tempfile.TemporaryDirectory(prefix="rehearsal.") as directory:
        in_fork(lambda: _save_until_told_to_stop(writer, Path(directory)))
        return in_fork(lambda: _resume(case, Path(directory))).steps


def import_everything() -> None:
    """Import once what every fork needs: it takes longer than a small rank."""
    if "nemo_sspo.megatron.core.training" in sys.modules and "transformer_engine.pytorch" in sys.modules:
        return
    if not cuda_runtime.is_pretended():
        raise RuntimeError("no pretended GPU here: start with `python -m tests.rehearsal ...`")
    from tests.rehearsal import kernels, transformer_engine

    kernels.install_before_imports()
    transformer_engine.install()
    import nemo_sspo.megatron.core.binding

    if "nemo" in available():
        import nemo_sspo.megatron.nemo.binding  # noqa: F401

    # A fork cannot initialize what its parent has begun to use.
    torch.cuda.init()
    # Each fork collects garbage several times, and would look at all that was imported each time.
    gc.collect()
    gc.freeze()


def in_fork(function: Callable[[], Ledger | None]) -> Any:
    """Call it in a forked process, and hand back its ledger, if it makes one.

    Raises:
        RehearsalError: whatever it raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _tell(writer, function)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:
        raise RehearsalError("the rank ended without a word")
    result = json.loads(answer)
    if "error" in result:
        raise RehearsalError(result["error"])
    return None if result["ledger"] is None else Ledger.from_json(result["ledger"])


def _tell(writer: int, function: Callable[[], Ledger | None]) -> None:
    """What the forked process does; it does not return."""
    try:
        try:
            ledger = function()
            answer = {"ledger": None if ledger is None else ledger.to_json()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps(answer))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also where nobody listens any more: a fork that went on would run the rest of the tests
        os._exit(0)


def _train(case: Case, directory: Path, plant: Callable[[], None] | None) -> Ledger:
    from nemo_sspo.megatron.binding import binding
    from nemo_sspo.megatron.observers.standard import standard_observers
    from tests.rehearsal.watch import Watch, WatchCore, watch_head

    watch = Watch(case.key)
    first = [WatchCore(watch)] if case.trainer == "core" else []
    if case.trainer == "nemo":
        from tests.rehearsal.watch_nemo import watch_nemo

        watch_nemo(watch)
    watch_head()
    job = _job_of_rank(case, directory)
    if plant is not None:
        plant()
    on_fake_gpu(case, lambda: binding(case.trainer).train(job, [*first, *standard_observers(job)]))
    return watch.ledger


def _job_of_rank(case: Case, directory: Path) -> Any:
    """The case's job, with the folders and files that rank 0 makes for all ranks of a cluster."""
    from nemo_sspo.megatron.checkpoints.states import draft_of, name_trainer

    job = job_of(case, directory)
    if case.rank != 0:
        draft = draft_of(job.scratch, 1, job.attempt)
        for folder in (job.output / "weights", draft):
            folder.mkdir(parents=True, exist_ok=True)
        name_trainer(draft, case.trainer)
        job.metrics_file.touch()
    return job


def _reference(case: Case, directory: Path) -> None:
    from nemo_sspo.megatron.binding import binding
    from nemo_sspo.megatron.jobs import ReferenceJob

    job = job_of(case, directory)
    reference = ReferenceJob(job.pairs, job.weights, job.hf_dir, job.train, job.parallel, job.precision, job.progress)
    try:
        on_fake_gpu(case, lambda: binding(case.trainer).reference_logps(reference))
    except RuntimeError as error:
        # The last thing it does: this rank's pairs are there, those of other replicas, of the last stage and of the
        # tensor- and context-parallel rank that speaks for the others are not.
        alone = case.parallel.data == case.parallel.pipeline == 1 and case.rank == 0
        if alone or "were not computed exactly once" not in str(error):
            raise


def _save_until_told_to_stop(case: Case, directory: Path) -> None:
    """A first attempt that gets its signal in the first step, and leaves a state that the rank's replicas can load."""
    from nemo_sspo.megatron.binding import Observer, binding
    from nemo_sspo.megatron.observers.standard import standard_observers

    class Stop(Observer):
        def on_start(self, training: Any) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    def train() -> None:
        from tests.rehearsal.machine import write_whole_states

        write_whole_states()
        binding(case.trainer).train(job, [*standard_observers(job), Stop()])

    job = _job_of_rank(case, directory)
    with suppress(Interrupted):
        on_fake_gpu(case, train)


def _resume(case: Case, directory: Path) -> Ledger:
    """A second attempt, with the state that the first one saved."""
    from nemo_sspo.megatron.checkpoints.states import states

    if not states(job_of(case, directory).scratch):
        raise RuntimeError("no state was saved to resume from")
    return _train(case, directory, None)


def on_fake_gpu(case: Case, function: Callable[[], Any]) -> None:
    """Call it as that rank. This process stays one: fork first."""
    from tests.rehearsal import kernels, machine
    from tests.rehearsal.fake_tensors import FakeGpu

    machine.pretend(case)
    with FakeGpu(kernels.higher_order()):
        function()
