"""What a stage is declared by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nemo_sspo.artifacts.facts.base import Facts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.stages.runner import inputs
from nemo_sspo.stages.runner.inputs import StepInputs

Group = Literal["sampling", "scoring and embedding", "pairs", "training", "conversion and preparation"]
"""What a stage's time is spent on: the colours of the report's timeline, in this order."""


@dataclass(frozen=True)
class Stage:
    """All that the planner, the runners and the report know of a stage."""

    module: str
    """Module below nemo_sspo/stages that holds ``run(context)``."""
    environment: Literal["train", "rollout"]
    group: Group
    facts: type[Facts]
    """What it reports beside its files."""
    steps: Callable[[Experiment, int], int] = lambda experiment, iteration: 0
    """How many steps an iteration has; iteration 0 is the preparation."""
    inputs: StepInputs = inputs.nothing
    settings: tuple[str, ...] = ()
    """Dotted configuration keys. A change invalidates the artifact, unless the setting is a knob."""
    selection_settings: tuple[str, ...] = ()
    """Further ones, where an iteration has a choice of checkpoints; elsewhere they have no effect."""
    sharded: bool = False
    ranks: bool = False
    """Runs under one process per rank of the training layout."""
    gpu: bool = False
    """Needs an accelerator where there is one."""
    converts_policy: bool = False
    """Converts the policy, on the host."""
    one_model: bool = True
    """Its shards load the same model, so one process may run several shards and load it once."""
    saves_state: bool = False
    """Saves its state when a runner stops it. The others end at once: their step is run again."""
    rate: tuple[str, str] = ("", "")
    """Which of the timings in its manifest is its rate, and the unit."""
    publishes: bool = True
    """Publishes an artifact. The report does not: it is a page of what is there, drawn after the last steps of a run
    whether they succeeded or not, by ``nemo-sspo report``."""
