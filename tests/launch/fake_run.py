"""Run an experiment over the fake stages: here, or as ``python -m tests.launch.fake_run <runs> <name> ...``."""

import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.artifacts.store import open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.local.runner import LocalRunner
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.run_directory import bind, hold
from nemo_sspo.launch.shard_batches import ShardBatch
from nemo_sspo.stages.runner.registry import STAGES


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.states: dict[str, Mapping[str, Any]] = {}

    def skipped(self, step: Step) -> None:
        self.events.append(("skipped", step.step_id))

    def left_out(self, step: Step, reason: str) -> None:
        self.events.append(("left out", step.step_id))

    def started(self, step: Step) -> None:
        self.events.append(("started", step.step_id))

    def advanced(self, step: Step, state: Mapping[str, Any]) -> None:
        self.states[step.step_id] = state

    def finished(self, step: Step, seconds: float) -> None:
        assert seconds > 0
        self.events.append(("finished", step.step_id))

    def stopping(self, step: Step, seconds: float) -> None:
        self.events.append(("stopping", step.step_id))

    def of(self, kind: str) -> list[str]:
        """Steps of one kind of event, in order."""
        return [name for event, name in self.events if event == kind]


def tiny_experiment(runs: Path, name: str, *overrides: str) -> Experiment:
    """One iteration of the quickstart whose stages run under this interpreter."""
    here = (f"cluster.train.python={sys.executable}", f"cluster.rollout.python={sys.executable}")
    return load_experiment(
        ["experiment=quickstart", f"runs_dir='{runs}'", f"name={name}", "iterations=1", *here, *overrides]
    )


def fake_command(experiment: Experiment, batch: ShardBatch, attempt: str) -> list[str]:
    """The command line of fake steps."""
    step, shards = batch[0], shard_ranges([step.shard for step in batch])
    place = ["--run", str(experiment.run_dir), "--iteration", str(step.iteration), "--shard", shards]
    return [sys.executable, "-m", "tests.launch.fake_stages", step.stage, *place, "--attempt", attempt]


def drive(experiment: Experiment, display: Recorder | None = None, stages: Container[str] = STAGES) -> Recorder:
    """Hold, bind and run the steps of some stages, which depend on no others."""
    display, layout = display or Recorder(), RunLayout(experiment.run_dir)
    steps = [step for step in plan(experiment) if step.stage in stages]
    with hold(layout) as lock:
        bind(experiment, layout)
        LocalRunner(experiment, display, lock=lock, command=fake_command, steps=steps).run()
    return display


def digests(run: Path) -> dict[str, str]:
    """Content of every published artifact."""
    paths = sorted(run.glob("**/manifest.json"))
    return {str(path.parent.relative_to(run)): open_artifact(path.parent).manifest.digest for path in paths}


if __name__ == "__main__":
    drive(tiny_experiment(Path(sys.argv[1]), *sys.argv[2:]))
