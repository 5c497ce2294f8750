"""What every optimizer step logged, and whether each iteration began where its closed form says."""

from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.artifacts.facts.training import ReferenceFacts, TrainFacts
from nemo_sspo.artifacts.layout import METRICS, step_id
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.stages.training.step1 import STEP1_TOLERANCE


@dataclass(frozen=True)
class TrainingCurve:
    """The metrics of one iteration's steps, in order."""

    iteration: int
    finished: bool
    steps: list[int]
    metrics: dict[str, list[float]]
    """One value per step, by the names in metrics.jsonl; NaN where a step has none that means something."""

    def last(self, name: str) -> float | None:
        """Value after the last step."""
        return self.metrics[name][-1] if self.metrics.get(name) else None

    def first(self, name: str) -> float | None:
        """Value at the first step."""
        return self.metrics[name][0] if self.metrics.get(name) else None


@dataclass(frozen=True)
class Step1Identity:
    """The first step's preference loss, as trained and as computed from the targets alone.

    Before its first update a policy that starts from its reference has the reference's log-probs: every log-ratio is 0.
    """

    iteration: int
    measured: float
    """The loss that training logged."""
    closed_form: float | None
    """The loss of the same pairs with every log-ratio 0, from their targets. None where that is not the loss to expect:
    training starts from another policy than its reference, the reference is the rollout engine's, or the loss couples
    pairs."""
    bound: float = STEP1_TOLERANCE["fp32"]
    """Relative difference up to which they count as equal."""

    @property
    def relative_difference(self) -> float | None:
        """|measured - closed form| / |closed form|; absolute where the closed form is 0."""
        if self.closed_form is None:
            return None
        return abs(self.measured - self.closed_form) / (abs(self.closed_form) or 1.0)

    @property
    def holds(self) -> bool | None:
        """Whether they agree; None where there is no closed form."""
        difference = self.relative_difference
        return None if difference is None else difference <= self.bound


@dataclass(frozen=True)
class ReferenceLogps:
    """Where an iteration's reference log-probs come from."""

    iteration: int
    source: str | None
    """``rollout``: the engine that sampled the responses; ``recompute``: the trainer."""
    largest_difference: float | None
    """Of the engine's log-probs from recomputed ones, in nats; None where they were not compared."""


def training_curves(run: RunRecord) -> list[TrainingCurve]:
    """One curve per iteration that has taken a step, the running one included."""
    curves = []
    for iteration in run.iterations:
        published = run.of("train", iteration)
        path = published[0].path / METRICS if published else _under_way(run, iteration)
        if path is None:
            continue
        lines = run.lines(path)
        if not lines:
            continue
        names = [name for name in lines[0] if name != "step"]
        metrics = {name: [float(line.get(name, float("nan"))) for line in lines] for name in names}
        if _starts_from_reference(run) and lines[0]["step"] == 1 and "accuracy" in metrics:
            metrics["accuracy"][0] = float("nan")  # d_w = d_l = 0: the sign of a rounding error
        curves.append(TrainingCurve(iteration, bool(published), [int(line["step"]) for line in lines], metrics))
    return curves


def full_batches(curve: TrainingCurve, name: str) -> list[tuple[int, float]]:
    """(step, value) of the steps on a full batch: a metric of a batch's spectrum is smaller for a smaller batch."""
    pairs = curve.metrics.get("pairs") or [1.0] * len(curve.steps)
    points = zip(curve.steps, curve.metrics.get(name, []), pairs, strict=False)
    return [(step, value) for step, value, count in points if count == max(pairs)]


def reference_logps(run: RunRecord) -> list[ReferenceLogps]:
    """One per iteration whose reference log-probs are published."""
    return [
        ReferenceLogps(iteration, found.source, found.largest_difference)
        for iteration in run.iterations
        for found in run.facts("reference_logps", iteration, ReferenceFacts)
    ]


def step1_identities(run: RunRecord) -> list[Step1Identity]:
    """One per trained iteration."""
    return [
        Step1Identity(iteration, train.step1_loss, train.step1_closed_form, _step1_bound(run, iteration))
        for iteration in run.iterations
        for train in run.facts("train", iteration, TrainFacts)
        if train.step1_loss is not None
    ]


def _step1_bound(run: RunRecord, iteration: int) -> float:
    """By the precision that the iteration was trained in."""
    return STEP1_TOLERANCE[run.of("train", iteration)[0].manifest.config.get("precision.kind", "fp32")]


def _starts_from_reference(run: RunRecord) -> bool:
    return (run.settings.get("train") or {}).get("reference", "previous") == "previous"


def _under_way(run: RunRecord, iteration: int) -> Path | None:
    """The metrics file of a training step that is not published yet."""
    files = run.layout.scratch(step_id("train", iteration)).glob(f"*/{METRICS}")
    return max(files, key=lambda path: path.stat().st_mtime, default=None)
