"""Which stages there are, each declared once. Imports nothing heavy."""

from collections.abc import Iterator, Mapping

from nemo_sspo.artifacts.facts.base import Facts
from nemo_sspo.artifacts.facts.evaluation import EvaluationFacts, SelectionFacts
from nemo_sspo.artifacts.facts.pairs import DiagnosisFacts, PairFacts
from nemo_sspo.artifacts.facts.sampling import (
    EmbeddingFacts,
    FurtherFacts,
    LabelledFacts,
    PromptFacts,
    RolloutFacts,
    ScoreFacts,
)
from nemo_sspo.artifacts.facts.training import ReferenceFacts, TrainFacts, WeightFacts
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.stages.runner import inputs
from nemo_sspo.stages.runner.inputs import Inputs
from nemo_sspo.stages.runner.stage import Stage


def _in_preparation(experiment: Experiment, iteration: int) -> int:
    return int(iteration == 0)


def _in_iterations(experiment: Experiment, iteration: int) -> int:
    return int(iteration > 0)


def _for_each_policy(experiment: Experiment, iteration: int) -> int:
    return 1


def _for_each_shard(experiment: Experiment, iteration: int) -> int:
    return experiment.rollout.shards if iteration else 0


def _where_selecting(experiment: Experiment, iteration: int) -> int:
    return int(iteration > 0 and experiment.selection.is_on)


def _for_each_candidate(experiment: Experiment, iteration: int) -> int:
    return experiment.selection.candidates * _where_selecting(experiment, iteration)


def _for_candidates_and_base(experiment: Experiment, iteration: int) -> int:
    return _for_each_candidate(experiment, iteration) if iteration else int(experiment.selection.is_on)


def _where_labelled(experiment: Experiment, iteration: int) -> int:
    return int(iteration == 0 and experiment.evaluation.labelled_pairs is not None)


def _where_further(experiment: Experiment, iteration: int) -> int:
    return int(iteration > experiment.first_iterations)


SAMPLING = ("policy", "rollout", "engine", "seed")
MODEL = ("trainer", "parallel", "precision")
INTERVALS = ("evaluation.bootstrap_samples", "evaluation.confidence")
_REFERENCE = (
    *("train.reference", "train.reference_source", "train.reference_check_share", "train.reference_tolerance"),
    *("train.packing", "train.pack_tokens", "train.micro_batch_size", "train.share_prompt", "train.layers"),
    "train.head_chunk_tokens",
)

_TOKENS = ("tokens_per_second", "tokens/s")

STAGES: Mapping[str, Stage] = {
    "prepare_prompts": Stage(
        "sampling.prepare_prompts",
        "rollout",
        "conversion and preparation",
        PromptFacts,
        _in_preparation,
        inputs.nothing,
        ("policy", "prompts", "data", "seed", "iterations"),
        selection_settings=("selection.prompts",),
    ),
    "further_prompts": Stage(
        "sampling.further_prompts",
        "rollout",
        "conversion and preparation",
        FurtherFacts,
        _where_further,
        inputs.further_prompts,
        ("policy", "prompts", "data", "seed", "further"),
    ),
    "import_policy": Stage(
        "training.import_policy",
        "train",
        "conversion and preparation",
        WeightFacts,
        _in_preparation,
        inputs.nothing,
        ("policy", "precision"),
        converts_policy=True,
    ),
    "score_labelled": Stage(
        "pairs.score_labelled",
        "rollout",
        "scoring and embedding",
        LabelledFacts,
        _where_labelled,
        inputs.nothing,
        ("oracle", "evaluation.labelled_pairs", "data.columns"),
        gpu=True,
    ),
    "rollout": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        RolloutFacts,
        _for_each_shard,
        inputs.rollout,
        (*SAMPLING, "data.columns"),
        sharded=True,
        gpu=True,
        rate=_TOKENS,
    ),
    "score": Stage(
        "sampling.score",
        "rollout",
        "scoring and embedding",
        ScoreFacts,
        _for_each_shard,
        inputs.score,
        ("oracle", "judging"),
        sharded=True,
        gpu=True,
        rate=("pairs_per_second", "comparisons/s"),
    ),
    "embed": Stage(
        "sampling.embed",
        "rollout",
        "scoring and embedding",
        EmbeddingFacts,
        _for_each_shard,
        inputs.embed,
        ("encoder", "judging"),
        sharded=True,
        gpu=True,
        rate=("responses_per_second", "responses/s"),
    ),
    "build_pairs": Stage(
        "pairs.build_pairs",
        "rollout",
        "pairs",
        PairFacts,
        _in_iterations,
        inputs.build_pairs,
        ("pairs", "gate", "judging"),
    ),
    "reference_logps": Stage(
        "training.reference_logps",
        "train",
        "training",
        ReferenceFacts,
        _in_iterations,
        inputs.reference_logps,
        (*_REFERENCE, "seed", *MODEL),
        ranks=True,
        gpu=True,
    ),
    "train": Stage(
        "training.train",
        "train",
        "training",
        TrainFacts,
        _in_iterations,
        inputs.train,
        ("train", "loss", "repulsion", "seed", *MODEL),
        selection_settings=("selection.candidates",),
        ranks=True,
        gpu=True,
        saves_state=True,
    ),
    "export_candidate": Stage(
        "training.export",
        "train",
        "conversion and preparation",
        WeightFacts,
        _for_each_candidate,
        inputs.export_candidate,
        ("policy",),
        sharded=True,
        converts_policy=True,
        one_model=False,
    ),
    "rollout_selection": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        RolloutFacts,
        _for_candidates_and_base,
        inputs.rollout_selection,
        SAMPLING,
        sharded=True,
        gpu=True,
        one_model=False,
        rate=_TOKENS,
    ),
    "select_model": Stage(
        "evaluation.select_model",
        "rollout",
        "scoring and embedding",
        SelectionFacts,
        _where_selecting,
        inputs.select_model,
        ("oracle", "judging", *INTERVALS, "seed"),
        selection_settings=("selection",),
        gpu=True,
    ),
    "export": Stage(
        "training.export",
        "train",
        "conversion and preparation",
        WeightFacts,
        _in_iterations,
        inputs.export,
        ("policy",),
        converts_policy=True,
    ),
    "rollout_held_out": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        RolloutFacts,
        _for_each_policy,
        inputs.rollout_held_out,
        (*SAMPLING, "evaluation.best_of_n"),
        sharded=True,
        gpu=True,
        rate=_TOKENS,
    ),
    "evaluate": Stage(
        "evaluation.evaluate",
        "rollout",
        "scoring and embedding",
        EvaluationFacts,
        _in_iterations,
        inputs.evaluate,
        ("oracle", "judging", "evaluation", "seed"),
        gpu=True,
    ),
    "diagnose": Stage(
        "pairs.diagnose",
        "rollout",
        "pairs",
        DiagnosisFacts,
        _in_iterations,
        inputs.diagnose,
        ("pairs", "gate", "judging", "seed"),
    ),
    "report": Stage("", "rollout", "conversion and preparation", Facts, publishes=False),
}
"""Every stage of the loop in its order: within an iteration, each comes after those it reads.

Held-out rollouts are one shard: they are few, and an evaluation reads them whole. A shard of export_candidate and of
rollout_selection is a candidate; the base policy is one alone. No iteration has a report: a run on Slurm ends with its
job, and `nemo-sspo run` draws the page itself."""


def stage_inputs(stage: str, experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Directories of the artifacts that a step reads, by name."""
    return STAGES[stage].inputs(experiment, layout, iteration, shard)


def steps_of_run(experiment: Experiment) -> Iterator[tuple[str, int, int]]:
    """(stage, iteration, shard) of every step; iteration 0 prepares the base policy and its held-out responses."""
    for iteration in range(experiment.iterations + 1):
        for name, stage in STAGES.items():
            yield from ((name, iteration, shard) for shard in range(stage.steps(experiment, iteration)))
