"""When every step ran, what it cost, and how fast it was."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from nemo_sspo.artifacts.layout import VOLATILE
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.stages.runner.registry import STAGES

LOADING = "loading_seconds"
STEP_TIMINGS = "steps.jsonl"
_SAMPLING = ("rollout",)
_JUDGING = ("score", "embed")


@dataclass(frozen=True)
class Span:
    """One step on the clock."""

    step_id: str
    stage: str
    iteration: int
    started: datetime
    ended: datetime
    gpus: int


@dataclass(frozen=True)
class StageCost:
    """A stage of one iteration, over its shards (S-SPPO Table 7)."""

    stage: str
    iteration: int
    shards: int
    seconds: float
    """Work of all shards added up, without the start of their processes."""
    gpu_hours: float
    loads: int
    """Times that a process loaded the model of the stage; 0 where no step records it."""
    loading_seconds: float
    """Seconds of these loads, a part of `seconds`."""
    rate: float | None
    """Mean rate of a shard."""
    rate_unit: str
    peak_memory_gib: float | None
    """Training: the most that one rank held, on its GPU where it has one. Else main memory of the largest task."""
    mfu: float | None


@dataclass(frozen=True)
class Running:
    """A step's last report of its progress."""

    step_id: str
    done: int
    total: int
    unit: str
    note: str
    age: float
    """Seconds since the report."""


def stage_rank(stage: str) -> int:
    """Position of a stage in the loop; a stage of another release comes last."""
    return list(STAGES).index(stage) if stage in STAGES else len(STAGES)


def spans(run: RunRecord) -> list[Span]:
    """Every published step, in the order in which they began."""
    gpus = {step.step_id: step.gpus for step in run.plan}
    return [
        Span(
            step.step_id,
            step.manifest.stage,
            step.manifest.iteration,
            step.started,
            step.ended,
            gpus.get(step.step_id, 0),
        )
        for step in run.steps
    ]


@dataclass(frozen=True)
class Overlap:
    """How far an iteration's responses were scored and embedded while others were still sampled."""

    beside: float
    """Seconds of `judging` during which responses were sampled too."""
    judging: float
    """Seconds during which something was scored or embedded."""


def overlap(spans: Sequence[Span]) -> Overlap:
    """Over all iterations, on the clock: what runs at once counts once."""
    sampled, judged = (_busy([s for s in spans if s.stage in stages]) for stages in (_SAMPLING, _JUDGING))
    beside = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in sampled for b in judged)
    return Overlap(beside, sum(end - begin for begin, end in judged))


def _busy(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """The union of spans, as stretches (begin, end) in seconds since the epoch that do not touch each other."""
    stretches: list[tuple[float, float]] = []
    for begin, end in sorted((span.started.timestamp(), span.ended.timestamp()) for span in spans):
        if stretches and begin <= stretches[-1][1]:
            begin, last = stretches.pop()
            end = max(end, last)
        stretches.append((begin, end))
    return stretches


def stage_costs(run: RunRecord) -> list[StageCost]:
    """Cost and rate of every stage of every iteration."""
    gpus = {step.step_id: step.gpus for step in run.plan}
    keys = sorted({(s.manifest.iteration, stage_rank(s.manifest.stage), s.manifest.stage) for s in run.steps})
    costs = []
    for iteration, _, stage in keys:
        steps = run.of(stage, iteration)
        rate, unit = _rate(run, stage, iteration)
        training = _training_timings(run, iteration) if stage == "train" else []
        loading = [timings[LOADING] for step in steps if LOADING in (timings := step.manifest.timings)]
        costs.append(
            StageCost(
                stage=stage,
                iteration=iteration,
                shards=len(steps),
                seconds=sum(step.seconds for step in steps),
                gpu_hours=sum(step.seconds * gpus.get(step.step_id, 0) for step in steps) / 3600,
                loads=len(loading),
                loading_seconds=sum(loading),
                rate=rate,
                rate_unit=unit,
                peak_memory_gib=_peak_memory(training or [step.manifest.timings for step in steps]),
                mfu=_mean([line["mfu"] for line in training[1:] if "mfu" in line]),
            )
        )
    return costs


def running_steps(run: RunRecord) -> list[Running]:
    """Steps without an artifact that have reported progress; one that was killed stays until it is started again."""
    found = []
    for name in run.pending:
        for state in run.lines(path) if (path := run.layout.progress(name)).exists() else []:
            age = time.time() - float(state.get("updated", 0.0))
            done, total = int(state.get("done", 0)), int(state.get("total", 0))
            found.append(Running(name, done, total, str(state.get("unit", "")), str(state.get("note", "")), age))
    return found


def wall_seconds(run: RunRecord) -> float | None:
    """From the first step's start to the last one's end."""
    if not run.steps:
        return None
    return (max(step.ended for step in run.steps) - min(step.started for step in run.steps)).total_seconds()


def _rate(run: RunRecord, stage: str, iteration: int) -> tuple[float | None, str]:
    if stage == "train":
        # The first step pays for what is allocated and compiled once.
        steps = _training_timings(run, iteration)
        return _mean([line["tokens_per_second"] for line in steps[1:] if "tokens_per_second" in line]), "tokens/s"
    name, unit = STAGES[stage].rate if stage in STAGES else ("", "")
    timings = [step.manifest.timings for step in run.of(stage, iteration)]
    return _mean([each[name] for each in timings if name in each]), unit


def _training_timings(run: RunRecord, iteration: int) -> list[dict[str, float]]:
    return [
        line
        for step in run.of("train", iteration)
        if (path := step.path / VOLATILE / STEP_TIMINGS).exists()
        for line in run.lines(path)
    ]


def _peak_memory(timings: Sequence[Mapping[str, float]]) -> float | None:
    return max((each["peak_memory_gib"] for each in timings if "peak_memory_gib" in each), default=None)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
