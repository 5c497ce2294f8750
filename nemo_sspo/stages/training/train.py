"""One iteration of S-SPPO: the policy moves towards its calibrated win rates and pushes the pairs' states apart."""

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from nemo_sspo.artifacts.changes import setting_changes
from nemo_sspo.artifacts.facts.training import ReferenceFacts, TrainFacts
from nemo_sspo.artifacts.layout import HF_MODEL, METRICS, NEMO_CHECKPOINT, VOLATILE, candidate_checkpoint
from nemo_sspo.artifacts.manifest import digest_of
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.store import link_tree
from nemo_sspo.config.binding import bind
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.repulsions import Repulsion
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import candidate_problems
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch import pairs_at_reference
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, binding
from nemo_sspo.megatron.checkpoints.adapter_files import join_parts
from nemo_sspo.megatron.checkpoints.state_files import INDEX, damage
from nemo_sspo.megatron.checkpoints.states import notes_file, states
from nemo_sspo.megatron.head.choice import choose_head
from nemo_sspo.megatron.jobs import ReferenceJob, TrainingJob
from nemo_sspo.megatron.loss.loss import PreferenceObjective
from nemo_sspo.megatron.models.hf_files import copy_side_files
from nemo_sspo.megatron.observers.standard import standard_observers
from nemo_sspo.megatron.observers.step_log import read_log
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from nemo_sspo.objective.losses import LOSSES, couples_pairs
from nemo_sspo.objective.pair_batch import PairBatch
from nemo_sspo.objective.repulsion import REPULSIONS, repulsion_weight
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.settings import stage_knobs, stage_settings
from nemo_sspo.stages.runner.slurm_task import is_leader
from nemo_sspo.stages.training.checked_reference import refuse_other_reference
from nemo_sspo.stages.training.policy_checkpoint import policy_checkpoint
from nemo_sspo.stages.training.step1 import STEP1_TOLERANCE

STEP1_ROUNDING = 1e-6


def run(context: StageContext) -> None:
    """Train on all ranks; rank 0 publishes the checkpoint, the Hugging Face files beside it, and the step metrics."""
    job = _job(context)
    refuse_too_many_candidates(job)
    trainer = binding(context.experiment.trainer)
    # Report a wrong policy or layout as one line, not as a traceback of every rank.
    trainer.refuse(job)
    require_fit(job.pairs, job.hf_dir)
    if is_leader():
        note_changes(context, job.scratch)
    metrics = on_every_rank(
        lambda: train_on_rank(trainer, job, checks=_starts_from_its_reference(context)), job.parallel.world_size
    )
    # The weights are on disk: after a stop signal from here on, the step still publishes in the remaining time.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if metrics is None:
        return
    output = context.output
    copy_side_files(job.hf_dir, output.path / HF_MODEL)
    for number, directory in enumerate(job.earlier_candidates.values()):
        take_in_candidate(directory, output.path / candidate_checkpoint(number, job.candidates))
    if job.train.peft is not None:
        for number in range(job.candidates):
            published = output.path / candidate_checkpoint(number, job.candidates)
            join_parts(published, job.weights, from_base=context.iteration == 1)
    job.logs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(job.metrics_file, output.path / METRICS)
    shutil.copyfile(job.timings_file, job.logs / job.timings_file.name)
    output.rows = len(job.pairs)
    first, last = metrics[0], metrics[-1]
    output.facts = TrainFacts(
        pairs=len(job.pairs),
        steps=len(metrics),
        loss_first=first["loss"],
        loss_last=last["loss"],
        d_chosen_last=last["d_chosen"],
        d_rejected_last=last["d_rejected"],
        step1_loss=first["preference_loss"],
        step1_closed_form=_step1_closed_form(context, job, first["preference_loss"]),
        head=choose_head(job.train, separable=job.objective.separable),
    )
    output.notes += job.notes
    output.timings |= _timings(read_log(job.timings_file))


def train_on_rank(trainer: Binding, job: TrainingJob, *, checks: bool) -> list[dict[str, Any]]:
    """On each rank; before the first step a sample of the pairs' reference is computed again, if `checks`."""
    if checks and not states(job.scratch):
        policy = (job.weights, job.hf_dir, job.train, job.parallel, job.precision)
        refuse_other_reference(ReferenceJob(job.pairs, *policy, Progress(None)), job.seed, trainer.reference_logps)
    trainer.train(job, standard_observers(job))
    return read_log(job.metrics_file)


def _starts_from_its_reference(context: StageContext) -> bool:
    """Whether the policy that training starts from is the one that its pairs' log-ratios are taken against."""
    return context.experiment.train.reference == "previous" or context.iteration == 1


def take_in_candidate(candidate: Path, target: Path) -> None:
    """Link a candidate's checkpoint from the scratch into the artifact; raises UserError if damaged."""
    if problem := damage(candidate):
        raise UserError(f"{problem}: a candidate is damaged; `nemo-sspo redo <run> --from <this step>` trains anew")
    link_tree(candidate, target)
    (target / INDEX).unlink()  # the manifest has the digests from here on


def _job(context: StageContext) -> TrainingJob:
    experiment, checkpoint = context.experiment, context.input("checkpoint")
    return TrainingJob(
        pairs=PairTable.read(context.input("build_pairs").path, context.input("reference_logps").path),
        weights=policy_checkpoint(context),
        hf_dir=checkpoint.file(HF_MODEL),
        output=context.output.path / NEMO_CHECKPOINT,
        scratch=scratch_of(context),
        logs=context.output.path / VOLATILE,
        run_name=f"{experiment.name}.iter_{context.iteration}",
        train=experiment.train,
        parallel=experiment.parallel,
        precision=experiment.precision,
        objective=objective_of(experiment),
        repulsion_weight=repulsion_weight_of(experiment.repulsion),
        seed=context.seed,
        progress=context.progress,
        candidates=experiment.selection.candidates,
    )


def refuse_too_many_candidates(job: TrainingJob) -> None:
    """Raise a UserError when two candidates would be the same checkpoint."""
    for problem in candidate_problems(job.candidates, len(job.batches), f"{len(job.pairs)} pairs"):
        raise UserError(problem)


def scratch_of(context: StageContext) -> Path:
    """Directory of this job's state: training never resumes from a state of other settings, inputs or ranks.

    Batches, and with them the steps, are the same in every layout and packing. Other ranks have other parts of a state.
    """
    inputs = {name: [artifact.manifest.digest for artifact in group] for name, group in context.inputs.items()}
    settings = stage_settings(context.experiment, context.stage)
    identity = {"settings": settings, "inputs": inputs, "parallel": context.experiment.parallel.model_dump()}
    return context.scratch / digest_of(identity)[:16]


def note_changes(context: StageContext, scratch: Path) -> None:
    """Note which knobs change in the middle of a training, or that states of another layout are not resumed from."""
    scratch.mkdir(parents=True, exist_ok=True)
    knobs, record = stage_knobs(context.experiment, context.stage), scratch / "knobs.json"
    if own := states(scratch):
        before = json.loads(record.read_bytes()) if record.exists() else knobs
        lines = [f"changed after {own[0].name}: {line}" for line in setting_changes(before, knobs)]
    else:
        others = [states(folder) for folder in sorted(context.scratch.iterdir()) if folder != scratch]
        lines = [
            f"{found[0].parent.name}/{found[0].name} is the state of a training with other parallel.* or settings: it "
            "is set aside, and training begins from its first step"
            for found in others
            if found
        ]
    file = notes_file(scratch)
    known = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for line in lines:
        if line not in known:
            print(f"note: {line}", flush=True)
            with file.open("a", encoding="utf-8") as notes:
                notes.write(line + "\n")
    record.write_text(json.dumps(knobs), encoding="utf-8")


def objective_of(experiment: Experiment) -> PreferenceObjective:
    """The loss and the repulsion of an experiment, as functions with their parameters bound."""
    loss, repulsion = experiment.loss, experiment.repulsion
    return PreferenceObjective(
        loss=partial(_times, bind(loss, LOSSES), loss.factor),
        repulsion=bind(repulsion, REPULSIONS),
        pooling=repulsion.pooling,
        separable=loss.separable,
    )


def _times(loss: Callable[[PairBatch], Tensor], factor: float, pairs: PairBatch) -> Tensor:
    return factor * loss(pairs)


def repulsion_weight_of(repulsion: Repulsion) -> Callable[[int, int], float]:
    return partial(repulsion_weight, weight=repulsion.weight, schedule=repulsion.schedule)


def _timings(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Means over all steps except the first, which includes one-time allocation and compilation."""
    later = steps[1:] or steps
    timings = {"seconds_per_step": fmean(line["seconds"] for line in later)}
    if "mfu" in steps[0]:
        timings["mfu"] = fmean(line["mfu"] for line in later)
    # Of the fullest rank, on its GPU where it has one; the manifest's other figure is the stage's own process.
    timings["rank_peak_memory_gib"] = max(line["peak_memory_gib"] for line in steps)
    return timings


def _step1_closed_form(context: StageContext, job: TrainingJob, measured: float) -> float | None:
    """What the first preference loss is with every log-ratio 0; None where the run does not start from its reference.

    For ``sppo`` the closed form is 1/2 eta^2 [(p_w - 1/2)^2 + (p_l - 1/2)^2]. A loss that couples pairs has none here,
    because its value depends on the packing.

    Raises RuntimeError when they differ in fp32: then the reference log-probs are not the starting policy's.
    """
    # The engine's log-probs are equal only within a tolerance, which their own check reports.
    from_rollout = context.input("reference_logps").facts(ReferenceFacts).source == "rollout"
    if not _starts_from_its_reference(context) or from_rollout:
        return None
    rows = job.batches[0].pairs
    pairs = pairs_at_reference([job.pairs[row] for row in rows], [1 / len(rows)] * len(rows))
    if couples_pairs(job.objective.loss, pairs):
        return None
    expected = job.objective.loss(pairs).mean().item()
    off = abs(measured - expected) > STEP1_TOLERANCE[job.precision.kind] * abs(expected) + STEP1_ROUNDING
    if off and job.precision.kind == "fp32":
        raise RuntimeError(
            f"step 1: the preference loss is {measured:.6g}, but with every log-ratio 0 it is {expected:.6g}; "
            "the reference log-probs are not those of the policy that training starts from"
        )
    return expected
