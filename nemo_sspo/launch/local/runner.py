"""The local runner: the steps of a run as processes of this machine, as many at once as its resources allow.

The disk is the queue: a step is done when its artifact is published. Steps that depend on it start then, even if its
process still has other steps to run. Any process that dies can be started again.
"""

import subprocess
import time
from collections.abc import Sequence

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.artifacts.store import discard_drafts, is_published, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.failure import forget_failure, write_failure
from nemo_sspo.launch.local.display import Display
from nemo_sspo.launch.local.guard import guarded
from nemo_sspo.launch.local.processes import Command, RunningBatch, stage_command
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.machine import gpus_to_use, local_cluster
from nemo_sspo.launch.plan import Step, chain_lengths, plan
from nemo_sspo.launch.shard_batches import ShardBatch, fair_size, shard_batches
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.stages.runner.freshness import Freshness
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.variables import of_process

POLL_SECONDS = 0.2
_STOP_SECONDS = 20.0


class LocalRunner:
    """Runs what is missing of an experiment. The caller holds the run's lock."""

    def __init__(
        self,
        experiment: Experiment,
        display: Display,
        *,
        lock: int,
        command: Command | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        """`steps` limits the work to a part of the plan that depends on nothing outside it."""
        self._experiment = experiment
        self._cluster = local_cluster(experiment)
        self._layout = RunLayout(experiment.run_dir)
        self._display = display
        self._lock = lock
        self._command = command or stage_command
        self._steps = tuple(steps or plan(experiment))
        self._urgency = chain_lengths(self._steps)
        self._gpus = list(gpus_to_use(self._cluster))
        self._all_gpus = len(self._gpus)
        self._done: set[str] = set()
        self._running: list[RunningBatch] = []

    def run(self) -> None:
        """Run until every step is published, or left out after an early stop.

        Raises:
            StepFailed: a step failed; the others have been stopped.
            UserError: a published artifact was made with other settings or inputs, or is damaged.
        """
        try:
            while len(self._done) < len(self._steps) or self._running:
                self._start_what_fits()
                time.sleep(POLL_SECONDS)
                self._collect()
        finally:
            self._stop_all()

    def _start_what_fits(self) -> None:
        """Start ready steps, the longest remaining chain first; skip what is published.

        A step that waits for GPUs blocks later steps from taking them; otherwise training on all GPUs would starve.
        """
        self._leave_out()
        while skipped := [step for step in self._ready() if is_published(step.output)]:
            freshness = freshness_of(self._experiment)
            for step in skipped:
                self._check_published(step, freshness)
                self._done.add(step.step_id)
                self._display.skipped(step)
        ready = sorted(self._ready(), key=lambda step: -self._urgency[step.step_id])
        for batch in shard_batches(ready, self._shard_batch_size):
            if self._fits(batch[0]):
                self._start(batch)
            elif batch[0].gpus:
                break

    def _leave_out(self) -> None:
        """Steps after an early stop count as done."""
        if (stop := early_stop(self._layout)) is None:
            return
        for step in self._steps:
            if stop.leaves_out(step.iteration) and step.step_id not in self._done:
                self._done.add(step.step_id)
                self._display.left_out(step, str(stop))

    def _ready(self) -> list[Step]:
        running = {step.step_id for item in self._running for step in item.batch}
        return [
            step
            for step in self._steps
            if step.step_id not in self._done and step.step_id not in running and self._done.issuperset(step.depends_on)
        ]

    def _fits(self, step: Step) -> bool:
        if step.gpus:
            return step.gpus <= len(self._gpus)
        without_gpus = sum(not item.gpus for item in self._running)
        return without_gpus < self._cluster.parallel_steps

    def _shard_batch_size(self, step: Step) -> int:
        """Shards per batch for `step`: one batch per engine that fits on the GPUs. Without GPUs half of the
        processes take one each, because the others score finished samples."""
        alike = [other for other in self._steps if (other.stage, other.iteration) == (step.stage, step.iteration)]
        unfinished = sum(other.step_id not in self._done for other in alike)
        processes = self._all_gpus // step.gpus if step.gpus else self._cluster.parallel_steps // 2
        return fair_size(unfinished, processes)

    def _check_published(self, step: Step, freshness: Freshness) -> None:
        """A published step must be complete and match this experiment and the current inputs."""
        open_artifact(step.output, whole=False)
        if reasons := freshness.reasons(step.output):
            raise UserError(
                f"{step.output}: out of date ({'; '.join(reasons)}): `nemo-sspo redo {self._layout.root}` makes it anew"
            )

    def _start(self, batch: ShardBatch) -> None:
        for step in batch:
            discard_drafts(step.output)
            self._layout.progress(step.step_id).unlink(missing_ok=True)
            forget_failure(self._layout, step.step_id)
        first = batch[0]
        attempt = self._attempt(batch)
        log = self._layout.log(first.step_id, attempt)
        log.parent.mkdir(parents=True, exist_ok=True)
        gpus = tuple(self._gpus[: first.gpus])
        del self._gpus[: first.gpus]
        with log.open("wb") as file:
            process = subprocess.Popen(
                guarded(self._command(self._experiment, batch, attempt), self._save_seconds(first)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment(first, gpus),
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        self._running.append(RunningBatch(batch, process, gpus, log))
        self._display.started(first)

    def _attempt(self, batch: ShardBatch) -> str:
        """A number that no log of the shard batch's steps has yet."""
        names = (name for step in batch for name in self._layout.attempts(step.step_id))
        return str(1 + max((int(name) for name in names if name.isdigit()), default=0))

    def _environment(self, step: Step, gpus: Sequence[str]) -> dict[str, str]:
        # No GPU for a step that was assigned none: it would use memory of another step's GPU, and conversion, which
        # runs on the host, would find CUDA.
        return of_process(getattr(self._experiment.cluster, step.environment).variables, gpus)

    def _save_seconds(self, step: Step) -> float:
        return self._cluster.save_seconds if STAGES[step.stage].saves_state else 0.0

    def _collect(self) -> None:
        """Report progress; take in what is published and what has ended."""
        for item in list(self._running):
            code = item.process.poll()  # before the disk is read: an ended process has published everything it will
            self._take_in(item)
            if code is None:
                if item.step:
                    self._display.advanced(item.step, read_progress(self._layout.progress(item.step.step_id)) or {})
                continue
            self._running.remove(item)
            self._gpus[:0] = item.gpus
            if item.step or code != 0:
                failed = StepFailed(item.step or item.batch[-1], code, item.log)
                write_failure(self._layout, failed.step.step_id, failed.reason)
                raise failed

    def _take_in(self, item: RunningBatch) -> None:
        """The published steps of a shard batch are done, and the next one is under way."""
        while item.step and is_published(item.step.output):
            self._done.add(item.step.step_id)
            self._display.finished(item.step, time.monotonic() - item.began)
            item.published, item.began = item.published + 1, time.monotonic()
            if item.step:
                self._display.started(item.step)

    def _stop_all(self) -> None:
        """Each guard ends its step and everything that the step started."""
        for item in self._running:
            item.process.terminate()
            if item.step and (seconds := self._save_seconds(item.step)):
                self._display.stopping(item.step, seconds)
        for item in self._running:
            try:
                item.process.wait(self._save_seconds(item.batch[0]) + _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                item.process.kill()
                item.process.wait()
        self._running.clear()
