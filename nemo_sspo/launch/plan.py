"""An experiment as a graph of steps. Pure: no file is opened and no process started."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.layout import RunLayout, step_id
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.stages.runner.registry import STAGES, stage_inputs, steps_of_run
from nemo_sspo.stages.runner.settings import setting_keys


@dataclass(frozen=True)
class Step:
    """One process (or one group of ranks) that reads some artifacts and publishes one."""

    step_id: str
    stage: str
    iteration: int
    shard: int
    environment: Literal["train", "rollout"]
    ranks: int
    """Processes that work on it together."""
    gpus: int
    """GPUs it occupies; 0 on a machine without any."""
    inputs: tuple[Path, ...]
    """Artifact directories it reads."""
    output: Path
    """Artifact directory it publishes."""
    depends_on: tuple[str, ...]
    """Steps whose artifacts it reads."""


def plan(experiment: Experiment) -> tuple[Step, ...]:
    """Every step of a run, each after those it depends on."""
    layout = RunLayout(experiment.run_dir)
    makers: dict[Path, str] = {}
    steps = []
    for stage, iteration, shard in steps_of_run(experiment):
        step = _step(experiment, layout, stage, iteration, shard, makers)
        makers[step.output] = step.step_id
        steps.append(step)
    return tuple(steps)


def chain_lengths(steps: Sequence[Step]) -> dict[str, int]:
    """Steps on the longest chain from each step to the end of the run: a scheduler should start the longest first."""
    lengths = {step.step_id: 1 for step in steps}
    for step in reversed(steps):
        for parent in step.depends_on:
            lengths[parent] = max(lengths[parent], lengths[step.step_id] + 1)
    return lengths


def as_data(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The graph as plain data, for JSON."""
    return [
        {
            "step": step.step_id,
            "stage": step.stage,
            "iteration": step.iteration,
            "shard": step.shard,
            "environment": step.environment,
            "ranks": step.ranks,
            "gpus": step.gpus,
            "inputs": [path.as_posix() for path in step.inputs],
            "output": step.output.as_posix(),
            "depends_on": list(step.depends_on),
        }
        for step in steps
    ]


def _step(
    experiment: Experiment, layout: RunLayout, stage: str, iteration: int, shard: int, makers: dict[Path, str]
) -> Step:
    spec = STAGES[stage]
    groups = stage_inputs(stage, experiment, layout, iteration, shard).values()
    inputs = tuple(path for group in groups for path in group)
    sharding = shard if spec.sharded else None
    return Step(
        step_id=step_id(stage, iteration, sharding),
        stage=stage,
        iteration=iteration,
        shard=shard,
        environment=spec.environment,
        ranks=experiment.parallel.world_size if spec.ranks else 1,
        gpus=_gpus(experiment, stage),
        inputs=inputs,
        output=layout.artifact(stage, iteration, sharding),
        depends_on=tuple(dict.fromkeys(makers[path] for path in inputs)),
    )


def _gpus(experiment: Experiment, stage: str) -> int:
    spec, settings = STAGES[stage], setting_keys(experiment, stage)
    if not spec.gpu or not experiment.cluster.has_gpus:
        return 0
    if spec.ranks:
        return experiment.parallel.world_size
    if "oracle" in settings and experiment.oracle.kind == "llm_judge":
        return 0
    if "encoder" in settings and experiment.encoder.device == "cpu":
        return 0
    return experiment.engine.tensor_parallel if "engine" in settings else 1
