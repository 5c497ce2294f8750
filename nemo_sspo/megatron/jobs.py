"""What a rank is asked to do, and what a step gives: the same for every trainer binding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from nemo_sspo.artifacts.manifest import digest_of
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.batches.batch_plan import GlobalBatch, candidate_steps, shuffled
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.checkpoints.states import notes_file
from nemo_sspo.megatron.loss.loss import PreferenceObjective


@dataclass(frozen=True)
class ReferenceJob:
    """What a rank needs to compute its share of the reference log-probs."""

    pairs: PairTable
    weights: Path
    """Checkpoint of the reference policy."""
    hf_dir: Path
    """Its Hugging Face files, without weights."""
    train: Train
    parallel: Parallel
    precision: Precision
    progress: Progress


@dataclass(frozen=True)
class TrainingJob:
    """What a rank needs to train."""

    pairs: PairTable
    weights: Path
    """Checkpoint of the policy that training starts from."""
    hf_dir: Path
    """Its Hugging Face files, without weights."""
    output: Path
    """Where the new policy's checkpoint goes."""
    scratch: Path
    """State that a later attempt resumes from, and the step logs."""
    logs: Path
    """Where the loggers' files go."""
    run_name: str
    train: Train
    parallel: Parallel
    precision: Precision
    objective: PreferenceObjective
    repulsion_weight: Callable[[int, int], float]
    """lambda at (0-based step, total steps)."""
    seed: int
    progress: Progress
    candidates: int = 1
    """Checkpoints to keep, evenly spaced over the steps; the last one is `output`."""

    @property
    def batches(self) -> list[GlobalBatch]:
        """The pairs of every step: the same on every rank, in every layout and in every attempt."""
        train = self.train
        return shuffled(
            len(self.pairs), global_batch_size=train.global_batch_size, epochs=train.train_epochs, seed=self.seed
        )

    @property
    def weight_at(self) -> Callable[[int], float]:
        """lambda at a 0-based step."""
        return partial(_at_step, self.repulsion_weight, len(self.batches))

    @property
    def earlier_candidates(self) -> dict[int, Path]:
        """Where the candidates but the last go, by the step after which they are kept. They outlive an attempt."""
        steps = candidate_steps(len(self.batches), self.candidates)[:-1]
        return {step: self.scratch / f"candidate_{step}" for step in steps}

    @property
    def attempt(self) -> str:
        """A name of this attempt alone, the same on every rank: an attempt's draft is its own."""
        return digest_of({"output": str(self.output)})[:16]

    @property
    def metrics_file(self) -> Path:
        """One line per step; equal runs have equal lines."""
        return self.scratch / "metrics.jsonl"

    @property
    def notes(self) -> list[str]:
        """Notes of the attempts, for example on damaged states."""
        file = notes_file(self.scratch)
        return file.read_text().splitlines() if file.exists() else []

    @property
    def timings_file(self) -> Path:
        """One line per step of seconds and rates."""
        return self.scratch / "steps.jsonl"


def _at_step(weight: Callable[[int, int], float], total: int, step: int) -> float:
    return weight(step, total)


@dataclass(frozen=True)
class StepResult:
    """One optimizer step; equal on all ranks but for `started`."""

    metrics: Mapping[str, float]
    """By the names in `loss.metrics.METRICS`."""
    grad_norm: Tensor
    """Scalar, before clipping. May be on the device: `float()` waits for it."""
    learning_rate: Tensor
    """Scalar."""
    started: float
    """`time.monotonic()` when the step began."""
