"""Verdicts on what the trial's stages have published."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nemo_sspo.artifacts.facts.base import SomeFacts
from nemo_sspo.artifacts.facts.training import ReferenceFacts, TrainFacts
from nemo_sspo.artifacts.layout import METRICS, VOLATILE
from nemo_sspo.artifacts.store import open_artifact
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.doctor.bounds import BOUNDS, PREFERENCE, Bounds
from nemo_sspo.doctor.check import Check, at_most, not_run
from nemo_sspo.doctor.trial import LOOP, ONE_RANK, RESUMED, Trial
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.report.facts.training import Step1Identity
from nemo_sspo.stages.training.step1 import STEP1_TOLERANCE

_COMPARED = ("preference_loss", "grad_norm")
_ABSENT = "the stage that tells it has not been run: {} environment"


def trial_checks(trial: Trial) -> list[Check]:
    """Every named check of `doctor --run`."""
    bounds = BOUNDS[trial.loop.precision.kind]
    return [
        *(_ended(failure, trial.overdue) for failure in trial.failed),
        _step1(trial),
        _logps(trial, 1, "vLLM against Megatron", bounds),
        _oracle(trial),
        _ranks(trial, bounds),
        _resumed(trial, bounds),
        _logps(trial, 2, "export reloaded", bounds),
    ]


def _ended(failure: StepFailed, overdue: bool) -> Check:
    name = f"{failure.step.step_id} of {failure.log.parents[1].name}"
    note = "its time was over: it waited for something, or is slow (--minutes); " if overdue else ""
    note += "the end of its log is above"
    return Check(name, "failed", f"exit code {failure.exit_code}", "0", note=note)


def _step1(trial: Trial) -> Check:
    name = "step-1 closed form"
    train = _facts(trial, "train", TrainFacts)
    if train is None or train.step1_loss is None:
        return not_run(name, _ABSENT.format("train"))
    bound = STEP1_TOLERANCE[trial.loop.precision.kind]
    identity = Step1Identity(1, train.step1_loss, train.step1_closed_form, bound)
    difference = identity.relative_difference
    if difference is None:
        return not_run(name, "these settings have no closed form")
    note = f"loss {identity.measured:.7g}, closed form {identity.closed_form:.7g}"
    return at_most(name, difference, bound, unit="relative", stand_in=_processor(trial), note=note)


def _logps(trial: Trial, iteration: int, name: str, bounds: Bounds) -> Check:
    """The engine's log-probs of an iteration's responses against Megatron's, of each pair.

    In iteration 2 the engine has read the export, and Megatron the checkpoint that the export was made from.
    """
    reference = _facts(trial, "reference_logps", ReferenceFacts, iteration)
    if reference is None or reference.largest_difference is None:
        return not_run(name, _ABSENT.format("train or rollout"))
    note = f"{reference.checked_pairs} pairs, on average {reference.mean_difference:.2g} nats"
    if iteration > 1 and (trained := _facts(trial, "train", TrainFacts)) is not None:
        sides = (trained.d_chosen_last, trained.d_rejected_last)
        moved = max((abs(side) for side in sides if side is not None), default=0.0)
        note += f"; training had moved them by {moved:.2g}"
        if moved <= bounds.logps:  # the policy before training would pass as well
            return Check(name, "failed", reference.largest_difference, bounds.logps, "nats", note=note)
    return at_most(name, reference.largest_difference, bounds.logps, unit="nats", stand_in=_processor(trial), note=note)


def _oracle(trial: Trial) -> Check:
    name, oracle, has_gpus = "PairRM against the host", trial.loop.oracle, trial.loop.cluster.has_gpus
    if not isinstance(oracle, PairRMOracle):
        return not_run(name, f"oracle={oracle.kind} is another oracle")
    if (found := trial.on_host) is None:
        return not_run(name, _ABSENT.format("rollout"))
    precision = oracle.precision if oracle.precision != "auto" else "bfloat16" if has_gpus else "float32"
    note = f"{found['rows']} comparisons, on average {found['mean']:.2g}"
    stand_in = None if has_gpus else "CPU, in other batches"
    return at_most(name, found["largest"], PREFERENCE[precision], unit="of a win rate", stand_in=stand_in, note=note)


def _ranks(trial: Trial, bounds: Bounds) -> Check:
    """Two optimizer steps: on all ranks against on one."""
    has_gpus, ranks = trial.loop.cluster.has_gpus, trial.loop.parallel.world_size
    name = "two steps over NCCL"
    steps = _metrics(trial, LOOP)[:2]
    if len(steps) < 2:
        return not_run(name, _ABSENT.format("train"))
    if ranks == 1:
        sound = all(math.isfinite(step[key]) and step[key] > 0 for step in steps for key in _COMPARED)
        note = "a group of one rank; two GPUs would compare it with another layout"
        return Check(name, "passed" if sound else "failed", "2 steps", "finite", stand_in="1 rank", note=note)
    alone = _metrics(trial, ONE_RANK)[:2]
    if len(alone) < 2:
        return not_run(name, "the training on one rank has not ended")
    note = f"{ranks} ranks against one: {', '.join(_COMPARED)} of both steps"
    stand_in = None if has_gpus else "gloo"
    return at_most(name, _apart(steps, alone), bounds.ranks, unit="relative", stand_in=stand_in, note=note)


def _resumed(trial: Trial, bounds: Bounds) -> Check:
    name, killed = "kill and resume", trial.killed
    whole, again = _metrics(trial, LOOP), _metrics(trial, RESUMED)
    if not again:
        return not_run(name, _ABSENT.format("train"))
    if killed is None:
        return Check(name, "failed", "not killed", "killed", note="the training ended before its first state was seen")
    # The seconds of the steps before the state are those of the killed process only where they were not taken again.
    if _timings(trial)[: killed.after] != killed.timings[: killed.after]:
        note = f"killed after step {killed.after}, and begun from the first step again"
        return Check(name, "failed", "begun anew", "resumed", note=note)
    note = f"killed after step {killed.after} of {len(whole)}: {', '.join(_COMPARED)} of every step"
    return at_most(name, _apart(whole, again), bounds.resumed, unit="relative", stand_in=_processor(trial), note=note)


def _timings(trial: Trial) -> list[str]:
    path = trial.published(RESUMED, "train")
    return [] if path is None else (path / VOLATILE / "steps.jsonl").read_text().splitlines()


def _apart(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> float:
    """Largest relative difference over the steps; infinite where their number differs, not a number where one is."""
    if len(first) != len(second):
        return math.inf
    found = [abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(first, second, strict=True) for key in _COMPARED]
    return math.nan if any(map(math.isnan, found)) else max(found)


def _processor(trial: Trial) -> str | None:
    return None if trial.loop.cluster.has_gpus else "CPU"


def _facts(trial: Trial, stage: str, kind: type[SomeFacts], iteration: int = 1) -> SomeFacts | None:
    path = trial.published(LOOP, stage, iteration)
    return None if path is None else open_artifact(path).facts(kind)


def _metrics(trial: Trial, run: str) -> list[dict[str, float]]:
    path = trial.published(run, "train")
    return [] if path is None else list(_lines(path / METRICS))


def _lines(path: Path) -> Iterator[dict[str, float]]:
    yield from map(json.loads, path.read_text().splitlines())
