"""The context of a step: its settings, inputs and draft."""

import gc
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import Artifact, Draft
from nemo_sspo.config.experiment import Experiment

Model = TypeVar("Model")


@dataclass
class ModelCache:
    """What a process keeps between steps: the model that the steps of a shard batch share."""

    model: Any = None


@dataclass(frozen=True)
class StageContext:
    """One step of a run: its settings, its verified inputs and the draft it fills."""

    stage: str
    iteration: int
    shard: int
    experiment: Experiment
    layout: RunLayout
    inputs: dict[str, list[Artifact]]
    output: Draft
    progress: Progress
    scratch: Path
    """Mutable directory that outlives an attempt; removed once the step is published."""
    kept: ModelCache = field(default_factory=ModelCache)

    @property
    def seed(self) -> int:
        """Seed of this step alone: a 31-bit hash of the run's seed and the step's name."""
        text = f"{self.experiment.seed}/{self.stage}/{self.iteration}/{self.shard}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

    @property
    def policy(self) -> str:
        """The Hugging Face directory or hub id of the policy this step samples from."""
        exported = self.inputs.get("policy")
        return str(exported[0].file(HF_MODEL)) if exported else self.experiment.policy

    def load_once(self, load: Callable[[], Model]) -> Model:
        """The result of `load` in the first step of this process that called this.

        The steps of a process are shards of one stage and iteration, so they load the same thing. The step that loads
        records the duration.
        """
        if self.kept.model is None:
            # Collect an earlier step's released model now: vLLM's destructor would destroy the next one's global state.
            gc.collect()
            started = time.monotonic()
            self.kept.model = load()
            self.output.timings["loading_seconds"] = time.monotonic() - started
        return cast(Model, self.kept.model)

    def input(self, name: str) -> Artifact:
        """The only artifact under an input name."""
        (artifact,) = self.inputs[name]
        return artifact
