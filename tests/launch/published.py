"""Artifacts without content in the places of steps, made with today's settings and from what lies there."""

from collections.abc import Callable

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import Draft, is_published, open_artifact, publish
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.slurm.jobs import job_name
from nemo_sspo.stages.runner.registry import stage_inputs
from nemo_sspo.stages.runner.settings import rounding_knobs, stage_knobs, stage_settings


def publish_steps(experiment: Experiment, *names: str, fill: Callable[[Step, Draft], None] | None = None) -> None:
    """Publish the named steps, or all shards of a named stage of an iteration, and what they are made from."""
    steps = plan(experiment)
    wanted = {step.step_id for step in steps if names_step(step, names)}
    for step in reversed(steps):
        if step.step_id in wanted:
            wanted |= set(step.depends_on)
    for step in steps:
        if step.step_id in wanted and not is_published(step.output):
            _publish(experiment, step, fill)


def names_step(step: Step, names: tuple[str, ...]) -> bool:
    """Whether one of the names is the step's or its stage's."""
    return step.step_id in names or job_name(step) in names


def _publish(experiment: Experiment, step: Step, fill: Callable[[Step, Draft], None] | None) -> None:
    paths = stage_inputs(step.stage, experiment, RunLayout(experiment.run_dir), step.iteration, step.shard)
    inputs = {name: [open_artifact(path) for path in group] for name, group in paths.items()}
    step.output.parent.mkdir(parents=True, exist_ok=True)
    place = {"stage": step.stage, "iteration": step.iteration, "shard": step.shard}
    made_with = {
        "config": stage_settings(experiment, step.stage),
        "knobs": stage_knobs(experiment, step.stage),
        "rounding": rounding_knobs(experiment),
    }
    with publish(step.output, **place, **made_with, inputs=inputs) as draft:
        (draft.path / "content.txt").write_text(step.step_id)
        if fill is not None:
            fill(step, draft)
