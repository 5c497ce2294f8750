"""The last job of a run on Slurm draws its page: a step outside of the plan, because the page is no artifact."""

from collections.abc import Sequence

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import MANIFEST_NAME
from nemo_sspo.launch.plan import Step
from nemo_sspo.stages.runner.freshness import Freshness
from nemo_sspo.stages.runner.registry import STAGES

REPORT = "report"


def report_step(layout: RunLayout, steps: Sequence[Step]) -> Step:
    """Draws the page once the last steps (on which no other step depends) have ended, successfully or not."""
    awaited = {step_id for step in steps for step_id in step.depends_on}
    last = [step for step in steps if step.step_id not in awaited]
    return Step(
        step_id=REPORT,
        stage=REPORT,
        iteration=0,
        shard=0,
        environment=STAGES[REPORT].environment,
        ranks=1,
        gpus=0,
        inputs=tuple(step.output for step in last),
        output=layout.report,
        depends_on=tuple(step.step_id for step in last),
    )


def is_done(step: Step, freshness: Freshness) -> bool:
    """Whether a step's artifact is published and current, or its page drawn after all that it shows."""
    if STAGES[step.stage].publishes:
        return freshness.standing(step.output) == "current"
    manifests = [path / MANIFEST_NAME for path in step.inputs]
    try:
        return step.output.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in manifests)
    except FileNotFoundError:
        return False
