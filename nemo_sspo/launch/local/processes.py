"""The processes of a local run: what each is started with, and where it stands."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import Step
from nemo_sspo.launch.shard_batches import ShardBatch

Command = Callable[[Experiment, ShardBatch, str], list[str]]
"""Command line of a shard batch, from the experiment, the steps and the attempt's name."""


@dataclass
class RunningBatch:
    """A process, and the steps of its shard batch, which it takes one after another."""

    batch: ShardBatch
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    log: Path
    published: int = 0
    """How many of its steps are published."""
    began: float = field(default_factory=time.monotonic)
    """When the step under way began, on the monotonic clock."""

    @property
    def step(self) -> Step | None:
        """The step under way; None when all are published and the process only has to end."""
        return self.batch[self.published] if self.published < len(self.batch) else None


def stage_command(experiment: Experiment, batch: ShardBatch, attempt: str) -> list[str]:
    """The real command line of a shard batch; a list, so that no shell parses it."""
    step, shards = batch[0], shard_ranges([step.shard for step in batch])
    python = getattr(experiment.cluster, step.environment).python
    stage = ["-m", "nemo_sspo.stages", step.stage, f"--run={experiment.run_dir}"]
    stage += ["--iteration", str(step.iteration), "--shard", shards, "--attempt", attempt]
    if step.ranks == 1 or experiment.cluster.launcher == "fork":
        return [python, *stage]
    return [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={step.ranks}", *stage]
