"""The estimate of a whole run. Everything here is arithmetic over settings, sizes and a file of speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.estimate.batch import Batch, pair_tokens
from nemo_sspo.estimate.failures import Failures, failures
from nemo_sspo.estimate.fit import Held, Layout, fullest, layouts_that_fit
from nemo_sspo.estimate.parameters import policy_parameters, state_bytes
from nemo_sspo.estimate.phases import Lengths, Machine, Phase, Portions, mean_rank, phases, phases_before
from nemo_sspo.estimate.policy import policy_shape
from nemo_sspo.estimate.rank import StepPairs, TrainingRank
from nemo_sspo.estimate.speeds import Speeds
from nemo_sspo.estimate.step_time import StepTime, step_time
from nemo_sspo.launch.machine import gpus_to_use
from nemo_sspo.megatron.models.host_memory import host_bytes

if TYPE_CHECKING:
    from nemo_sspo.launch.checks.prompts import PlannedPrompts

_BF16, _FP32 = 2, 4
_RESPONSE_BYTES = 40
"""Of a sampled token in the tables: its id, its log-prob, its text, and the scores of its response."""


@dataclass(frozen=True)
class Disk:
    """In bytes."""

    weights: int
    """Imported and exported policies, and checkpoints."""
    responses: int
    states: int
    """While an iteration trains."""


@dataclass(frozen=True)
class Estimate:
    parameters: int
    held: Held
    step: StepTime
    batch: Batch
    """Of pairs of mean length."""
    filled: float
    """Share of the tokens that a step computes which are of pairs."""
    before: list[Phase]
    """The first iteration."""
    phases: list[Phase]
    """Of one iteration."""
    iterations: int
    disk: Disk
    host_bytes: int
    """Of a node that imports or exports the policy."""
    failures: Failures | None
    layouts: list[Layout]

    @property
    def seconds(self) -> float:
        """Of the run."""
        return _seconds(self.before) + self.iterations * _seconds(self.phases)

    @property
    def gpu_hours(self) -> float:
        """Of the run."""
        return _gpu_hours(self.before) + self.iterations * _gpu_hours(self.phases)


def _seconds(phases: list[Phase]) -> float:
    return sum(phase.seconds for phase in phases)


def _gpu_hours(phases: list[Phase]) -> float:
    return sum(phase.gpu_hours for phase in phases)


def estimate(experiment: Experiment, speeds: Speeds, lengths: Lengths, prompts: int | None = None) -> Estimate:
    """Of all iterations.

    Args:
        lengths: mean tokens, which nothing knows before a first iteration.
        prompts: of an iteration, where the prompts are not here.

    Raises:
        UserError: the sizes of the policy or the number of prompts are not known here, or no row holds a pair.
    """
    rank = longest_rank(experiment)
    mean = mean_rank(rank, experiment.train.global_batch_size, lengths)
    _require_room(mean)
    machine = _machine(experiment, speeds)
    portions = _portions(experiment, prompts)
    batch = Batch.of(mean)
    computed = batch.microbatches * batch.tokens * rank.parallel.context * rank.parallel.data
    parameters = policy_parameters(rank)
    return Estimate(
        parameters,
        fullest(rank),
        step_time(mean, speeds, machine.gpus_per_node),
        batch,
        mean.pairs.count * pair_tokens(mean) / computed,
        phases_before(experiment, rank, portions, lengths, machine),
        phases(experiment, rank, portions, lengths, machine),
        experiment.iterations,
        _disk(experiment, rank, portions, lengths),
        host_bytes(rank.model, _FP32 if rank.precision.kind == "fp32" else _BF16),
        failures(
            state_bytes(rank),
            rank.parallel.world_size,
            per_gpu_hour=speeds.failures_per_gpu_hour,
            to_host=speeds.to_host,
            restart_seconds=speeds.starting.training + state_bytes(rank) / speeds.storage,
        ),
        layouts_that_fit(rank, mean, speeds, machine.gpus_per_node),
    )


def longest_rank(experiment: Experiment) -> TrainingRank:
    """Rows as full as they may be: packed up to the budget, else of the longest prompt and response."""
    train, data, rollout = experiment.train, experiment.data, experiment.rollout
    prompt, response = data.max_prompt_tokens, rollout.max_response_tokens
    if experiment.pairs.max_tokens is not None:
        response = max(1, min(response, experiment.pairs.max_tokens - 1))
        prompt = min(prompt, experiment.pairs.max_tokens - response)
    if train.packing:  # two pairs fill the row
        response = train.pack_tokens // 8
        prompt = train.pack_tokens // 4 - response
    pairs = StepPairs(train.global_batch_size, prompt, response)
    return TrainingRank(
        policy_shape(experiment),
        experiment.parallel,
        train,
        experiment.precision,
        experiment.loss.separable,
        pairs,
        trainer=experiment.trainer,
    )


def _machine(experiment: Experiment, speeds: Speeds) -> Machine:
    """Of Slurm as many GPUs as a stage has shards for; of this machine its own, or as many as training asks for."""
    cluster = experiment.cluster
    if cluster.kind == "slurm":
        return Machine(
            experiment.rollout.shards * experiment.engine.tensor_parallel, cluster.gpus_per_node or 1, speeds
        )
    gpus = len(gpus_to_use(cluster)) or experiment.parallel.world_size
    return Machine(gpus, gpus, speeds)


def _require_room(mean: TrainingRank) -> None:
    budget, tokens = mean.train.pack_tokens, pair_tokens(mean)
    if mean.train.packing and tokens > budget:
        raise UserError(
            f"train.pack_tokens={budget}: a pair of mean length has {tokens} tokens (--lengths), and training refuses "
            "one that no row holds; raise it"
        )


def _portions(experiment: Experiment, prompts: int | None) -> Portions:
    planned = _planned(experiment)
    if prompts is None and planned is None:
        raise UserError(f"prompts={experiment.prompts}: their number is not known here; say it with --prompts-count N")
    trained = prompts if prompts is not None or planned is None else max(planned.portions)
    held_out = experiment.data.held_out_count if planned is None else planned.held_out
    return Portions(trained or 0, held_out, experiment.selection.prompts if experiment.selection.is_on else 0)


def _planned(experiment: Experiment) -> PlannedPrompts | None:
    """None for a data set id, of which nothing is read: what reads tables is not imported for it."""
    if not all(map(is_on_disk, experiment.prompt_sources)):
        return None
    from nemo_sspo.launch.checks.prompts import planned_prompts

    return planned_prompts(experiment)


def _disk(experiment: Experiment, rank: TrainingRank, portions: Portions, lengths: Lengths) -> Disk:
    copies = 1 + experiment.iterations * (
        1 + experiment.selection.candidates * (2 if experiment.selection.is_on else 1)
    )
    rollout = experiment.rollout
    sampled = portions.trained * rollout.samples_per_prompt + portions.held_out * rollout.held_out_samples_per_prompt
    responses = experiment.iterations * sampled * lengths.response * _RESPONSE_BYTES
    states = (experiment.train.keep_states + 1) * state_bytes(rank)
    return Disk(copies * policy_parameters(rank) * _BF16, responses, states)
