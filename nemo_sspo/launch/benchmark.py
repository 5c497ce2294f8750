"""A benchmark as a process of the rollout environment: checked here without heavy imports, and run there."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.artifacts.store import is_published, open_artifact, refuse_changes
from nemo_sspo.config.benchmarks import Answerer, BenchmarkRequest, WinRatesRequest, of_run
from nemo_sspo.config.cluster import Cluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import compose_settings
from nemo_sspo.config.mistakes import validation_message
from nemo_sspo.errors import UserError
from nemo_sspo.launch.local.guard import guarded
from nemo_sspo.launch.run_directory import stored_experiment
from nemo_sspo.stages.evaluation.benchmark import policy_artifact, progress_name, settings
from nemo_sspo.stages.runner.settings import knob_names
from nemo_sspo.stages.runner.variables import of_process

OnProgress = Callable[[Mapping[str, Any]], None]

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


@dataclass(frozen=True)
class Examinee:
    """A policy of a run before a benchmark, or a model that no run made."""

    root: Path
    """Its run, or where its answers and logs are to lie."""
    iteration: int
    """Whose policy of the run; 0 is the base, and such a model."""
    name: str
    """What a judge calls it."""
    who: Answerer
    cluster: Cluster
    of_run: bool

    @property
    def policy(self) -> str:
        """The Hugging Face directory or hub id that answers."""
        exported = RunLayout(self.root).artifact("export", self.iteration) / HF_MODEL
        return str(exported) if self.iteration else self.who.policy


def examinee(
    path: Path, iteration: int | None, overrides: Sequence[str] = (), config_dir: Path | None = None
) -> Examinee:
    """The policy of a run, or the model in a Hugging Face directory, which `overrides` say how to sample.

    Raises:
        UserError: there is neither, no such policy, or overrides beside a run.
    """
    if (path / "config.json").is_file() and not RunLayout(path).experiment.is_file():
        if iteration:
            raise UserError(f"--iteration {iteration}: {path} is a model, not a run")
        return plain_model(str(path), path.absolute().name, overrides, config_dir)
    if overrides:
        raise UserError(f"benchmark takes one run directory, and got {overrides[0]!r} besides")
    experiment, iteration = run_and_iteration(path, iteration)
    name = f"{experiment.name}-iter{iteration}" if iteration else f"{experiment.name}-base"
    return Examinee(path, iteration, name, of_run(experiment), experiment.cluster, True)


def plain_model(policy: str, name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> Examinee:
    """A model that no run made: a directory or hub id, with the engine, seed and cluster that `overrides` compose."""
    settings = compose_settings(overrides, config_dir)
    try:
        who = Answerer(
            policy=policy,
            engine=settings["engine"],
            seed=settings.get("seed", 0),
            template_arguments=settings.get("data", {}).get("template_arguments", {}),
        )
        cluster = TypeAdapter[Cluster](Cluster).validate_python(settings["cluster"])
    except ValidationError as error:
        raise UserError(validation_message(error, settings)) from None
    root = Path(settings.get("runs_dir", "runs")) / "models" / name
    return Examinee(root, 0, name, who, cluster, False)


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


def rollout_python(cluster: Cluster, given: str | None) -> str:
    """The interpreter that has vLLM.

    Raises:
        UserError: the cluster is Slurm, whose environment may be an image, and none is given.
    """
    if given is None and cluster.kind == "slurm":
        raise UserError(
            "this run is one of a Slurm cluster: in an allocation with a GPU, give --python, the interpreter of an "
            "environment with vLLM"
        )
    return given or cluster.rollout.python


def environment(cluster: Cluster) -> dict[str, str]:
    """Environment variables of a process of the rollout environment."""
    return of_process(cluster.rollout.variables, gpus=None)


def is_answered(request: BenchmarkRequest, who: Answerer) -> bool:
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
    refuse_changes(open_artifact(output), settings(request, who), inputs, knob_names(who))
    return True


def generate(
    request: BenchmarkRequest,
    cluster: Cluster,
    python: str,
    on_progress: OnProgress = lambda state: None,
) -> None:
    """Have the answers made.

    Raises:
        GenerationFailed: they were not.
    """
    layout, name = RunLayout(Path(request.run)), progress_name(request)
    _publish("nemo_sspo.stages.evaluation.benchmark", request, layout, name, cluster, python, on_progress)


def compare(request: WinRatesRequest, cluster: Cluster, python: str, on_progress: OnProgress) -> None:
    """Have the win rates between policies made.

    Raises:
        GenerationFailed: they were not.
    """
    name = "win_rates_between"
    layout = RunLayout(Path(request.output).parent)
    _publish(f"nemo_sspo.stages.evaluation.{name}", request, layout, name, cluster, python, on_progress)


def _publish(
    module: str,
    request: BenchmarkRequest | WinRatesRequest,
    layout: RunLayout,
    name: str,
    cluster: Cluster,
    python: str,
    on_progress: OnProgress,
) -> None:
    """Run a module on its request, with its log and progress under `name`, until its output is published."""
    progress, log = layout.progress(name), layout.log(name, "1")
    progress.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = guarded([python, "-m", module, request.model_dump_json()])
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(cluster),
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
