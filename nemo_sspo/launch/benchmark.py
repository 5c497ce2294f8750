"""A benchmark as a process of the rollout environment: checked here without heavy imports, and run there."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.artifacts.store import is_published, open_artifact, refuse_changes
from nemo_sspo.config.benchmarks import BenchmarkRequest
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.local.guard import guarded
from nemo_sspo.launch.run_directory import stored_experiment
from nemo_sspo.stages.evaluation.benchmark import policy_artifact, progress_name, settings
from nemo_sspo.stages.runner.settings import knob_names
from nemo_sspo.stages.runner.variables import of_process

_POLL_SECONDS = 0.2
_TAIL_LINES = 20


class GenerationFailed(Exception):
    """The process ended without its answers."""

    def __init__(self, code: int, log: Path) -> None:
        super().__init__(code, log)
        self.code, self.log = code, log

    def __str__(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if self.code == UserError.EXIT_CODE and errors:
            return errors[-1]
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return f"error: it ended with exit code {self.code}; the end of its log, {self.log}:\n{tail}"


def run_and_iteration(run: Path, iteration: int | None) -> tuple[Experiment, int]:
    """The experiment of a run, and the iteration given or that of its result: the last that has an exported policy, or,
    of a run that has stopped early, the one before its end.

    Raises:
        UserError: there is no run, or no such policy.
    """
    layout = RunLayout(run)
    experiment = stored_experiment(layout)
    if experiment is None:
        raise UserError(f"{run}: its experiment.json is of another version; run it again with this one")
    exported = [i for i in range(1, experiment.iterations + 1) if is_published(layout.artifact("export", i))]
    if iteration is None:
        if not exported:
            raise UserError(f"{run}: no policy has been exported yet; --iteration 0 takes the base policy")
        stop = early_stop(layout)
        return experiment, exported[-1] if stop is None else stop.result
    if iteration != 0 and iteration not in exported:
        there = ", ".join(map(str, [0, *exported]))
        raise UserError(f"--iteration {iteration}: {run} holds the policies of iterations {there} (0 is the base)")
    return experiment, iteration


def rollout_python(experiment: Experiment, given: str | None) -> str:
    """The interpreter that has vLLM.

    Raises:
        UserError: the run's cluster is Slurm, whose environment may be an image, and none is given.
    """
    if given is None and experiment.cluster.kind == "slurm":
        raise UserError(
            "this run is one of a Slurm cluster: in an allocation with a GPU, give --python, the interpreter of an "
            "environment with vLLM"
        )
    return given or experiment.cluster.rollout.python


def environment(experiment: Experiment) -> dict[str, str]:
    """Environment variables of a process of the rollout environment."""
    return of_process(experiment.cluster.rollout.variables, gpus=None)


def is_answered(request: BenchmarkRequest, experiment: Experiment) -> bool:
    """Whether the answers are published already, with these settings.

    Raises:
        UserError: they were made with other settings, or the path holds something else.
    """
    output = Path(request.output)
    if not is_published(output):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"--output {output}: something else lies there; give a directory that is not there yet")
        return False
    inputs = policy_artifact(request, RunLayout(Path(request.run)))
    refuse_changes(open_artifact(output), settings(request, experiment), inputs, knob_names(experiment))
    return True


def generate(
    request: BenchmarkRequest,
    experiment: Experiment,
    python: str,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> None:
    """Have the answers made.

    Raises:
        GenerationFailed: they were not.
    """
    layout = RunLayout(Path(request.run))
    name = progress_name(request)
    progress, log = layout.progress(name), layout.log(name, "1")
    progress.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = guarded([python, "-m", "nemo_sspo.stages.evaluation.benchmark", request.model_dump_json()])
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(experiment),
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            if state := read_progress(progress):
                on_progress(state)
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode or not is_published(Path(request.output)):
        raise GenerationFailed(process.returncode, log)
