"""A trial whose stages are played: what they would publish is chosen by the test."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.layout import METRICS, VOLATILE, RunLayout
from nemo_sspo.artifacts.store import is_published, publish
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.trial import LOOP, ONE_RANK, RESUMED, trial_experiment
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.plan import Step
from tests.some_facts import some_facts

STEPS = 12
COUNTS: dict[tuple[str, int], dict[str, Any]] = {
    ("reference_logps", 1): {"checked_pairs": 48, "largest_difference": 2e-5, "mean_difference": 6e-6},
    ("reference_logps", 2): {"checked_pairs": 48, "largest_difference": 3e-5, "mean_difference": 6e-6},
    ("train", 1): {
        "step1_loss": 40.0001,
        "step1_closed_form": 40.0,
        "d_chosen_last": 1.0,
        "d_rejected_last": -4.0,
    },
}


def loop(folder: Path, *overrides: str, gpus: int = 0) -> Experiment:
    """The small loop below `folder`."""
    return trial_experiment(overrides, gpus, folder, None)


def metrics(run: str) -> list[dict[str, float]]:
    """Steps of a run's training; on one rank they differ a little."""
    off = 1 + 1e-6 * (run == ONE_RANK)
    return [{"step": n, "preference_loss": (50.0 - n) * off, "grad_norm": 3.0 + n} for n in range(1, STEPS + 1)]


class Actor:
    """Plays a runner: publishes each step, and has the killed training wait for its end."""

    def __init__(self) -> None:
        self.counts = {key: dict(value) for key, value in COUNTS.items()}
        self.metrics = {run: metrics(run) for run in (LOOP, RESUMED, ONE_RANK)}
        self.resumes = True
        """Whether a second attempt goes on from the state."""
        self.saves = True
        """Whether the training saves states at all."""
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, experiment: Experiment, steps: Sequence[Step]) -> None:
        missing = [step for step in steps if not is_published(step.output)]
        self.calls.append((experiment.name, [step.step_id for step in missing]))
        for step in missing:
            if step.stage == "train":
                self._train(experiment, step)
            else:
                self._publish(experiment, step, {})

    def _train(self, experiment: Experiment, step: Step) -> None:
        run, layout = experiment.name, RunLayout(experiment.run_dir)
        scratch = layout.scratch(step.step_id) / "0123"
        seconds = [json.dumps({"step": n, "seconds": 0.1 * n}) for n in range(1, STEPS + 1)]
        if run == RESUMED and self.saves and not scratch.exists():
            scratch.mkdir(parents=True)
            (scratch / "steps.jsonl").write_text("\n".join(seconds[:5]) + "\n")
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            (scratch / "step_2").mkdir()
            (scratch / "step_4").mkdir()
            raise StepFailed(step, child.wait(30), layout.log(step.step_id, "1"))
        if run == RESUMED and not self.resumes:
            seconds = [line.replace("0.1", "0.7") for line in seconds]
        lines = "".join(json.dumps(line) + "\n" for line in self.metrics[run])
        self._publish(experiment, step, {METRICS: lines, f"{VOLATILE}/steps.jsonl": "\n".join(seconds) + "\n"})

    def _publish(self, experiment: Experiment, step: Step, files: dict[str, str]) -> None:
        step.output.parent.mkdir(parents=True, exist_ok=True)
        place = {"stage": step.stage, "iteration": step.iteration, "shard": step.shard}
        with publish(step.output, **place, config={}, inputs={}) as draft:
            for name, content in files.items():
                (draft.path / name).parent.mkdir(exist_ok=True)
                (draft.path / name).write_text(content)
            draft.facts = some_facts(**self.counts.get((step.stage, step.iteration), {}))
