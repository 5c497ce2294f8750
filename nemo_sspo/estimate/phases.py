"""The stages of an iteration: tokens, GPUs and seconds of each, from settings, mean lengths and a file of speeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.estimate.parameters import active_parameters, policy_parameters
from nemo_sspo.estimate.rank import StepPairs, TrainingRank
from nemo_sspo.estimate.speeds import Speeds
from nemo_sspo.estimate.step_time import reference_seconds, step_time
from nemo_sspo.megatron.batches.batch_plan import steps_per_epoch

_BF16 = 2
_PAIRRM = 304_000_000
"""Parameters of DeBERTa-v3-large that meet every token."""
_SOURCE, _CANDIDATE = 1224, 412
"""Tokens of prompt and response that it reads at most."""
_MINILM = 10_600_000
"""Of all-MiniLM-L6-v2."""
_ENCODED = 256
"""Tokens of a response that MiniLM reads at once."""


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of a response."""

    prompt: int
    response: int


@dataclass(frozen=True)
class Portions:
    """Prompts of an iteration, of an evaluation, and of a choice among candidates."""

    trained: int
    held_out: int
    selecting: int


@dataclass(frozen=True)
class Phase:
    """A stage of one iteration; where its shards are spread over GPUs, all of them."""

    stage: str
    tokens: int
    """That its model reads or writes."""
    gpus: int
    seconds: float

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True)
class Machine:
    """What stages run on."""

    gpus: int
    """That stages whose shards are spread may take together."""
    gpus_per_node: int
    speeds: Speeds


def phases(
    experiment: Experiment, rank: TrainingRank, portions: Portions, lengths: Lengths, machine: Machine
) -> list[Phase]:
    """Of one iteration, one after another: what runs beside a longer one is counted as if it ran alone."""
    return list(_phases(_Sizes(experiment, rank, portions, lengths, machine)))


def phases_before(
    experiment: Experiment, rank: TrainingRank, portions: Portions, lengths: Lengths, machine: Machine
) -> list[Phase]:
    """Of a run, before its first iteration: the policy's import, and its own held-out responses."""
    sizes = _Sizes(experiment, rank, portions, lengths, machine)
    responses = portions.held_out * experiment.rollout.held_out_samples_per_prompt
    return [_write(sizes, "import_policy", 2), _generate(sizes, "rollout_held_out", responses, 1)]


@dataclass(frozen=True)
class _Sizes:
    experiment: Experiment
    rank: TrainingRank
    portions: Portions
    lengths: Lengths
    machine: Machine

    @property
    def parameters(self) -> int:
        return policy_parameters(self.rank)

    @property
    def active(self) -> int:
        """Parameters that a token meets."""
        return active_parameters(self.rank)

    @property
    def load_seconds(self) -> float:
        """To read the policy, which every engine does by itself."""
        return self.parameters * _BF16 / self.machine.speeds.storage


def _phases(sizes: _Sizes) -> Iterator[Phase]:
    rollout, portions = sizes.experiment.rollout, sizes.portions
    shards = rollout.shards
    yield _generate(sizes, "rollout", portions.trained * rollout.samples_per_prompt, shards)
    yield _score(sizes, "score", portions.trained, rollout.samples_per_prompt, shards)
    yield _embed(sizes, portions.trained * rollout.samples_per_prompt, shards)
    yield from _training(sizes)
    if sizes.experiment.selection.is_on:
        candidates = sizes.experiment.selection.candidates
        responses = portions.selecting * rollout.held_out_samples_per_prompt
        yield _generate(sizes, "rollout_selection", candidates * responses, candidates)
        yield _score(sizes, "select_model", portions.selecting * candidates, 2 * rollout.held_out_samples_per_prompt, 1)
    yield _write(sizes, "export", 2)
    yield _generate(sizes, "rollout_held_out", portions.held_out * rollout.held_out_samples_per_prompt, 1)
    yield _score(sizes, "evaluate", portions.held_out, 2 * rollout.held_out_samples_per_prompt, 1)


def _generate(sizes: _Sizes, stage: str, responses: int, shards: int) -> Phase:
    engine, speeds = sizes.experiment.engine, sizes.machine.speeds
    engines = max(1, min(shards, sizes.machine.gpus // engine.tensor_parallel))
    gpus = engines * engine.tensor_parallel
    kind = engine.quantization or ("fp32" if engine.dtype == "float32" else "bf16")
    tokens = responses * sizes.lengths.response
    rate = gpus * speeds.generation.of(kind) / sizes.active
    return Phase(stage, tokens, gpus, speeds.starting.engine + sizes.load_seconds + tokens / rate)


def _score(sizes: _Sizes, stage: str, prompts: int, responses: int, shards: int) -> Phase:
    """Every ordered pair of a prompt's responses, or every response where the oracle gives each a reward."""
    oracle, speeds, lengths = sizes.experiment.oracle, sizes.machine.speeds, sizes.lengths
    if oracle.kind == "pairrm":
        response = min(lengths.response, oracle.candidate_max_tokens or _CANDIDATE)
        rows, row = (
            prompts * responses * (responses - 1),
            min(lengths.prompt, oracle.source_max_tokens or _SOURCE) + 2 * response,
        )
        parameters = _PAIRRM
    else:
        rows, row, parameters = prompts * responses, lengths.prompt + lengths.response, sizes.active
    if oracle.kind in ("llm_judge", "function"):
        return Phase(stage, rows * row, 0, 0.0)
    return _forward(sizes, stage, rows * row, parameters, shards, speeds)


def _embed(sizes: _Sizes, responses: int, shards: int) -> Phase:
    tokens = responses * min(sizes.lengths.response, _ENCODED)
    return _forward(sizes, "embed", tokens, _MINILM, shards, sizes.machine.speeds)


def _forward(sizes: _Sizes, stage: str, tokens: int, parameters: int, shards: int, speeds: Speeds) -> Phase:
    gpus = max(1, min(shards, sizes.machine.gpus))
    return Phase(stage, tokens, gpus, speeds.starting.other + 2 * parameters * tokens / (gpus * speeds.forward))


def _training(sizes: _Sizes) -> Iterator[Phase]:
    """As if every prompt had a pair, all of mean length."""
    train, speeds, per_node = sizes.experiment.train, sizes.machine.speeds, sizes.machine.gpus_per_node
    pairs, world = sizes.portions.trained, sizes.experiment.parallel.world_size
    rank = mean_rank(sizes.rank, train.global_batch_size, sizes.lengths)
    steps = steps_per_epoch(pairs, train.global_batch_size)
    start = speeds.starting.training + sizes.load_seconds
    tokens = 2 * pairs * (sizes.lengths.prompt + sizes.lengths.response)
    yield Phase("reference_logps", tokens, world, start + steps * reference_seconds(rank, speeds, per_node))
    seconds = steps * train.train_epochs * step_time(rank, speeds, per_node).total + start + 2 * sizes.load_seconds
    yield Phase("train", tokens * train.train_epochs, world, seconds)


def _write(sizes: _Sizes, stage: str, times: int) -> Phase:
    """To read and write the policy."""
    return Phase(stage, 0, 0, sizes.machine.speeds.starting.other + times * sizes.load_seconds)


def mean_rank(rank: TrainingRank, pairs: int, lengths: Lengths) -> TrainingRank:
    """The training with pairs of mean length."""
    return replace(rank, pairs=StepPairs(pairs, lengths.prompt, lengths.response))
