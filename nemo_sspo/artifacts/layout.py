"""Every path of a run, as functions of (stage, iteration, shard)."""

from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.errors import UserError


@dataclass(frozen=True)
class RunLayout:
    """Paths below one run directory."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The resolved configuration, composed once."""
        return self.root / "experiment.json"

    @property
    def lock(self) -> Path:
        """Held by the process that drives the run."""
        return self.root / ".lock"

    @property
    def summary(self) -> Path:
        """The table shown at the end, as data."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """The page drawn at the end of a run."""
        return self.root / "report.html"

    def artifact(self, stage: str, iteration: int = 0, shard: int | None = None) -> Path:
        """Final directory of an artifact; `shard` is None for stages that are not sharded."""
        if stage == "prepare_prompts":
            return self.root / "prompts"
        directory = self.root / f"iter_{iteration}" / stage
        return directory if shard is None else directory / f"shard_{shard:05d}"

    def benchmark(self, name: str, iteration: int) -> Path:
        """Answers of an iteration's policy (0: the base) to a public benchmark; not a step of the loop."""
        return self.root / "benchmarks" / f"iter_{iteration}" / name

    def log(self, step_id: str, attempt: str) -> Path:
        """Standard output and error of one attempt at a step."""
        return self.root / "logs" / f"{step_id}.{attempt}.log"

    def attempts(self, step_id: str) -> list[str]:
        """Names of the attempts at a step that have a log."""
        ends = len(f"{step_id}."), -len(".log")
        return [path.name[slice(*ends)] for path in self.logs(step_id)]

    def logs(self, step_id: str) -> list[Path]:
        """The logs of all attempts at a step, in no order."""
        return list(self.root.glob(f"logs/{step_id}.*.log"))

    def progress(self, step_id: str) -> Path:
        """Progress of a running step."""
        return self.root / "progress" / f"{step_id}.json"

    def failure(self, step_id: str) -> Path:
        """Why the last attempt at a step failed on this machine."""
        return self.root / "failures" / f"{step_id}.json"

    def scratch(self, step_id: str) -> Path:
        """Mutable working state of a step that outlives an attempt (checkpoints to resume from)."""
        return self.root / "scratch" / step_id

    @property
    def set_aside(self) -> Path:
        """Artifacts that `redo` took out of the run, a directory for each time."""
        return self.root / "set_aside"

    def judgements(self, step_id: str) -> Path:
        """What a paid oracle answered in a step. It outlives the step: together these files are what a run has paid."""
        return self.root / "judgements" / f"{step_id}.jsonl"


def step_id(stage: str, iteration: int = 0, shard: int | None = None) -> str:
    """Name of a step: ``prepare_prompts``, ``iter_1.train``, ``iter_1.rollout.00003``."""
    if stage == "prepare_prompts":
        return stage
    name = f"iter_{iteration}.{stage}"
    return name if shard is None else f"{name}.{shard:05d}"


TOKENS = "tokens.json"
SPELLED = "control_tokens.json"
VECTORS = "vectors.zarr"
METRICS = "metrics.jsonl"
SELECTION = "selection.json"
DIAGNOSTICS = "diagnostics.json"
NEMO_CHECKPOINT = "nemo"
HF_MODEL = "hf"
PEFT_ADAPTER = "adapter"
CANDIDATES = "candidates"
VOLATILE = "volatile"
"""Subfolder of an artifact for logs and timings; it is kept but is no part of the identity."""


def candidate_checkpoint(candidate: int, candidates: int) -> str:
    """Where a training's artifact holds the checkpoint of a candidate, counted from 0; the last is its end."""
    return NEMO_CHECKPOINT if candidate == candidates - 1 else f"{CANDIDATES}/{candidate:05d}"


def no_run(layout: RunLayout) -> UserError:
    """The error message for a directory without a run."""
    return UserError(f"{layout.root}: no run lies there; give the directory of one, as in runs/<name>")
