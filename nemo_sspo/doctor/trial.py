"""The runs of `doctor --run`: a small loop by the project's own stages, and two that repeat its training.

    loop      an iteration, and what the next one begins with: the exported policy is sampled and computed again
    resumed   its training once more, killed in the middle and started again
    one_rank  its training once more on one rank, where the loop's has several

The repetitions share the loop's artifacts up to the pairs, or the reference, by hard links. The disk is the queue: in a
machine or an image that has one of the two environments, its steps are run, and the rest waits for the other.
"""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.layout import RunLayout, step_id
from nemo_sspo.artifacts.store import is_published, link_tree, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.stages import Parallel
from nemo_sspo.doctor.interruption import killed_when
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.run_directory import write_atomically
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.variables import of_process

Drive = Callable[[Experiment, Sequence[Step]], None]
"""Runs steps of an experiment; raises StepFailed."""

SMALL = (
    "iterations=2",
    "data.prompts_per_iteration=48",
    "data.held_out_count=8",
    "train.global_batch_size=8",
    "train.micro_batch_size=4",
    # Engine and Megatron both compute every log-prob. Their difference is written down, and no difference passes, so
    # that the reference is Megatron's and step 1 has its closed form.
    "train.reference_source=rollout_checked",
    "train.reference_check_share=1.0",
    "train.reference_tolerance=1e-9",
)
STATE_EVERY = 2
"""Optimizer steps between the states of the training that is killed. It takes 12."""
LOOP, RESUMED, ONE_RANK = "loop", "resumed", "one_rank"
_ON_RANKS = [name for name, stage in STAGES.items() if stage.ranks]


def trial_experiment(overrides: Sequence[str], gpus: int, directory: Path, config_dir: Path | None) -> Experiment:
    """The small loop for a machine with so many GPUs, with the user's overrides."""
    layout = "single" if gpus == 1 else "tp2" if gpus < 4 else "tp2_pp2"
    here = ["experiment=quickstart-gpu", f"parallel={layout}"] if gpus else ["experiment=quickstart"]
    place = f'runs_dir="{directory}"', f"name={LOOP}"
    return load_experiment([*here, *SMALL, *overrides, *place], config_dir)


@dataclass(frozen=True)
class Killed:
    """What a killed training had left."""

    after: int
    """Optimizer steps in its newest state."""
    timings: list[str]
    """Lines that it wrote of its steps' seconds."""


@dataclass
class Trial:
    """What has been run, and why the rest was not."""

    loop: Experiment
    failed: list[StepFailed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """By run."""
    overdue: bool = False
    """Whether its time ran out, and what still ran was killed."""

    def layout(self, name: str) -> RunLayout:
        """Where a run of the trial lies."""
        return RunLayout(Path(self.loop.runs_dir) / name)

    def published(self, name: str, stage: str, iteration: int = 1) -> Path | None:
        """An artifact of one of the runs, if there is one. Sharded stages have one shard."""
        found = (step for step in plan(self.loop) if (step.stage, step.iteration) == (stage, iteration))
        path = self.layout(name).root / next(found).output.relative_to(self.loop.run_dir)
        return path if is_published(path) else None

    @property
    def on_host(self) -> dict[str, float] | None:
        """What `oracle_on_host` found; None where it has not been run."""
        file = _host_file(self.loop)
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def killed(self) -> Killed | None:
        """What the killed training had left; None where none was killed."""
        file = _killed_file(self.layout(RESUMED))
        return Killed(**json.loads(file.read_text())) if file.exists() else None


def run_trial(loop: Experiment, environments: set[str], drive: Drive, seconds: float) -> Trial:
    """Run all that the environments can, and kill what still runs when the time is over: it hangs."""
    trial, end = Trial(loop), time.monotonic() + seconds
    with killed_when(lambda: time.monotonic() > end) as cut:
        steps = runnable(loop_steps(loop), environments)
        _timed(trial, LOOP, lambda: drive(loop, steps))
        if "rollout" in environments and loop.oracle.kind == "pairrm" and trial.published(LOOP, "score"):
            _timed(trial, "oracle on the host", lambda: _score_on_host(loop))
        if "train" in environments and not trial.failed and trial.published(LOOP, "train"):
            _timed(trial, RESUMED, lambda: _kill_and_resume(trial, drive))
            if loop.parallel.world_size > 1 and not cut.happened:
                _timed(trial, ONE_RANK, lambda: _on_one_rank(trial, drive))
    trial.overdue = cut.happened
    return trial


def loop_steps(experiment: Experiment) -> list[Step]:
    """An iteration to its export, and the next one to the log-probs of what its policy answered."""
    return up_to(plan(experiment), step_id("reference_logps", 2))


def runnable(steps: Sequence[Step], environments: set[str]) -> list[Step]:
    """Steps that are published, or whose environment is here and whose inputs can be made."""
    chosen: dict[str, Step] = {}
    for step in steps:
        can_run = step.environment in environments and chosen.keys() >= set(step.depends_on)
        if is_published(step.output) or can_run:
            chosen[step.step_id] = step
    return [step for step in chosen.values() if chosen.keys() >= set(step.depends_on)]


def up_to(steps: Sequence[Step], last: str) -> list[Step]:
    """A step and all that it waits for."""
    wanted = {last}
    for step in reversed(steps):
        if step.step_id in wanted:
            wanted.update(step.depends_on)
    return [step for step in steps if step.step_id in wanted]


def _timed(trial: Trial, name: str, work: Callable[[], None]) -> None:
    started = time.monotonic()
    try:
        work()
    except StepFailed as failure:
        trial.failed.append(failure)
    trial.seconds[name] = round(time.monotonic() - started, 1)


def _score_on_host(loop: Experiment) -> None:
    """Keep what it finds, and nothing where it fails."""
    if _host_file(loop).exists():
        return
    environment = loop.cluster.rollout
    answer = subprocess.run(
        [environment.python, "-m", "nemo_sspo.doctor.oracle_on_host", str(loop.run_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=of_process(environment.variables, gpus=()),
        check=False,
    )
    if answer.returncode == 0:
        write_atomically(_host_file(loop), answer.stdout.splitlines()[-1] + "\n")


def _host_file(loop: Experiment) -> Path:
    return loop.run_dir / "oracle_on_host.json"


def _kill_and_resume(trial: Trial, drive: Drive) -> None:
    train = trial.loop.train.model_copy(update={"checkpoint_every_steps": STATE_EVERY})
    again = trial.loop.model_copy(update={"name": RESUMED, "train": train})
    steps = _shared(trial.loop, again, leave_out=("train",))
    layout = RunLayout(again.run_dir)
    scratch = layout.scratch("iter_1.train")
    if trial.killed is None:
        try:
            with killed_when(lambda: any(_states(scratch))) as cut:
                drive(again, steps)
        except StepFailed:
            if not cut.happened:
                raise
        if cut.happened:
            state = max(_states(scratch), key=_steps_in)
            timings = (state.parent / "steps.jsonl").read_text().splitlines()
            killed = Killed(_steps_in(state), timings)
            write_atomically(_killed_file(layout), json.dumps(asdict(killed)) + "\n")
    drive(again, steps)


def _killed_file(layout: RunLayout) -> Path:
    return layout.root / "killed.json"


def _states(scratch: Path) -> list[Path]:
    """Complete states of a training."""
    return [path for path in scratch.glob("*/step_*") if path.name.removeprefix("step_").isdigit()]


def _steps_in(state: Path) -> int:
    return int(state.name.removeprefix("step_"))


def _on_one_rank(trial: Trial, drive: Drive) -> None:
    alone = trial.loop.model_copy(update={"name": ONE_RANK, "parallel": Parallel()})
    drive(alone, _shared(trial.loop, alone, leave_out=_ON_RANKS))


def _shared(source: Experiment, target: Experiment, leave_out: Sequence[str]) -> list[Step]:
    """Link what the training of `target` reads and `source` has; the steps up to that training."""
    steps = up_to(plan(target), "iter_1.train")
    for step in steps:
        if step.stage not in leave_out and not is_published(step.output):
            step.output.parent.mkdir(parents=True, exist_ok=True)
            link_tree(source.run_dir / step.output.relative_to(target.run_dir), step.output)
    return steps


def step_facts(trial: Trial) -> list[dict[str, Any]]:
    """Seconds and memory of every step that was published, by run."""
    facts = []
    for name in (LOOP, RESUMED, ONE_RANK):
        for manifest in sorted(trial.layout(name).root.glob("**/manifest.json")):
            made = open_artifact(manifest.parent).manifest
            if name == LOOP or made.stage in _ON_RANKS:
                facts.append({"run": name, "stage": made.stage, "iteration": made.iteration, **made.timings})
    return facts
