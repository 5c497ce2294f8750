"""Which stages there are, each declared once, and which settings they depend on. Imports nothing heavy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.changes import CONTENT
from nemo_sspo.artifacts.fingerprint import UNSEEN, fingerprint
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.binding import module_file
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.roles import ImportPath, Knob, Role, SourcePath, WithoutEffect, roles
from nemo_sspo.stages.runner import inputs
from nemo_sspo.stages.runner.inputs import Inputs, StepInputs

Group = Literal["sampling", "scoring and embedding", "pairs", "training", "conversion and preparation"]
"""What a stage's time is spent on: the colours of the report's timeline, in this order."""


@dataclass(frozen=True)
class Stage:
    """All that the planner, the runners and the report know of a stage."""

    module: str
    """Module below nemo_sspo/stages that holds ``run(context)``."""
    environment: Literal["train", "rollout"]
    group: Group
    steps: Callable[[Experiment, int], int] = lambda experiment, iteration: 0
    """How many steps an iteration has; iteration 0 is the preparation."""
    inputs: StepInputs = inputs.nothing
    settings: tuple[str, ...] = ()
    """Dotted configuration keys. A change invalidates the artifact, unless the setting is a knob."""
    selection_settings: tuple[str, ...] = ()
    """Further ones, where an iteration has a choice of checkpoints; elsewhere they have no effect."""
    sharded: bool = False
    ranks: bool = False
    """Runs under one process per rank of the training layout."""
    gpu: bool = False
    """Needs an accelerator where there is one."""
    one_model: bool = True
    """Its shards load the same model, so one process may run several shards and load it once."""
    saves_state: bool = False
    """Saves its state when a runner stops it. The others end at once: their step is run again."""
    rate: tuple[str, str] = ("", "")
    """Which of the timings in its manifest is its rate, and the unit."""


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


_SAMPLING = ("policy", "rollout", "engine", "seed")
_MODEL = ("parallel", "precision")
_RECIPE = (
    *_SAMPLING,
    "prompts",
    "data",
    "iterations",
    "oracle",
    "encoder",
    "judging",
    "pairs",
    "gate",
    "loss",
    "repulsion",
    "train",
    *_MODEL,
)
"""All that a trained policy depends on, through the stages before its export."""
_INTERVALS = ("evaluation.bootstrap_samples", "evaluation.confidence")
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
        _in_preparation,
        inputs.nothing,
        ("policy", "prompts", "data", "seed", "iterations"),
        selection_settings=("selection.prompts",),
    ),
    "import_policy": Stage(
        "training.import_policy",
        "train",
        "conversion and preparation",
        _in_preparation,
        inputs.nothing,
        ("policy", "precision"),
    ),
    "score_labelled": Stage(
        "pairs.score_labelled",
        "rollout",
        "scoring and embedding",
        _where_labelled,
        inputs.nothing,
        ("oracle", "evaluation.labelled_pairs"),
        gpu=True,
    ),
    "rollout": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        _for_each_shard,
        inputs.rollout,
        _SAMPLING,
        sharded=True,
        gpu=True,
        rate=_TOKENS,
    ),
    "score": Stage(
        "sampling.score",
        "rollout",
        "scoring and embedding",
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
        _in_iterations,
        inputs.build_pairs,
        ("pairs", "gate", "judging"),
    ),
    "reference_logps": Stage(
        "training.reference_logps",
        "train",
        "training",
        _in_iterations,
        inputs.reference_logps,
        (*_REFERENCE, "seed", *_MODEL),
        ranks=True,
        gpu=True,
    ),
    "train": Stage(
        "training.train",
        "train",
        "training",
        _in_iterations,
        inputs.train,
        ("train", "loss", "repulsion", "seed", *_MODEL),
        selection_settings=("selection.candidates",),
        ranks=True,
        gpu=True,
        saves_state=True,
    ),
    "export_candidate": Stage(
        "training.export",
        "train",
        "conversion and preparation",
        _for_each_candidate,
        inputs.export_candidate,
        ("policy",),
        sharded=True,
        one_model=False,
    ),
    "rollout_selection": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        _for_candidates_and_base,
        inputs.rollout_selection,
        _SAMPLING,
        sharded=True,
        gpu=True,
        one_model=False,
        rate=_TOKENS,
    ),
    "select_model": Stage(
        "evaluation.select_model",
        "rollout",
        "scoring and embedding",
        _where_selecting,
        inputs.select_model,
        ("oracle", "judging", *_INTERVALS, "seed"),
        selection_settings=("selection",),
        gpu=True,
    ),
    "export": Stage(
        "training.export",
        "train",
        "conversion and preparation",
        _in_iterations,
        inputs.export,
        ("policy",),
    ),
    "rollout_held_out": Stage(
        "sampling.rollout",
        "rollout",
        "sampling",
        _for_each_policy,
        inputs.rollout_held_out,
        (*_SAMPLING, "evaluation.best_of_n"),
        sharded=True,
        gpu=True,
        rate=_TOKENS,
    ),
    "evaluate": Stage(
        "evaluation.evaluate",
        "rollout",
        "scoring and embedding",
        _in_iterations,
        inputs.evaluate,
        ("oracle", "judging", "evaluation", "seed"),
        gpu=True,
    ),
    "diagnose": Stage(
        "pairs.diagnose",
        "rollout",
        "pairs",
        _in_iterations,
        inputs.diagnose,
        ("pairs", "gate", "judging", "seed"),
    ),
}
"""Every stage of the loop in its order: within an iteration, each comes after those it reads.

Held-out rollouts are one shard: they are few, and an evaluation reads them whole. A shard of export_candidate and of
rollout_selection is a candidate; the base policy is one alone."""


def stage_inputs(stage: str, experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Directories of the artifacts that a step reads, by name."""
    return STAGES[stage].inputs(experiment, layout, iteration, shard)


def steps_of_run(experiment: Experiment) -> Iterator[tuple[str, int, int]]:
    """(stage, iteration, shard) of every step; iteration 0 prepares the base policy and its held-out responses."""
    for iteration in range(experiment.iterations + 1):
        for name, stage in STAGES.items():
            yield from ((name, iteration, shard) for shard in range(stage.steps(experiment, iteration)))


def stage_settings(experiment: Experiment, stage: str) -> dict[str, Any]:
    """The resolved settings a stage's artifact depends on, by dotted key."""
    role_of = roles(experiment)
    settings = {key: value for key, value in _resolved(experiment, stage).items() if not _may_change(role_of.get(key))}
    for key, source in source_settings(experiment, stage).items():
        if Path(source).exists():
            settings[f"{CONTENT}{key}"] = fingerprint(Path(source))
    for key in [key for key in settings if isinstance(role_of.get(key), ImportPath)]:
        file = module_file(settings[key])
        settings[f"{CONTENT}{key}"] = UNSEEN if file is None else fingerprint(file)
    return settings


def stage_knobs(experiment: Experiment, stage: str) -> dict[str, Any]:
    """The settings that a stage runs with and that may change in the middle of a run: recorded, never compared."""
    names = knob_names(experiment)
    return {key: value for key, value in _resolved(experiment, stage).items() if key in names}


def knob_names(experiment: Experiment) -> frozenset[str]:
    """All settings that may change in the middle of a run, by dotted key."""
    return frozenset(key for key, role in roles(experiment).items() if _may_change(role))


def rounding_knobs(experiment: Experiment) -> frozenset[str]:
    """Those of them that change results, by rounding."""
    return frozenset(key for key, role in roles(experiment).items() if isinstance(role, Knob))


def source_settings(experiment: Experiment, stage: str) -> dict[str, str]:
    """The settings of a stage that name files outside the run, or ids in their place, by dotted key."""
    role_of = roles(experiment)
    resolved = sorted(_resolved(experiment, stage).items())
    return {key: value for key, value in resolved if isinstance(role_of.get(key), SourcePath) and value is not None}


def recipe_settings(experiment: Experiment) -> dict[str, Any]:
    """The resolved settings that a trained policy depends on, by dotted key. No file is looked at."""
    # Intervals decide whether a run ends early, and so which policies there are.
    selecting = ("selection", *_INTERVALS) if experiment.selection.is_on else ()
    role_of = roles(experiment)
    resolved = _values(experiment, (*_RECIPE, *selecting))
    return {key: value for key, value in resolved.items() if not isinstance(role_of.get(key), WithoutEffect)}


def _may_change(role: Role | None) -> bool:
    return isinstance(role, Knob | WithoutEffect)


def setting_keys(experiment: Experiment, stage: str) -> tuple[str, ...]:
    """The dotted keys of the settings that a stage runs with."""
    spec = STAGES[stage]
    of_selection = spec.selection_settings if experiment.selection.is_on else ()
    return (*spec.settings, *of_selection, *_judging_settings(experiment, stage))


def _resolved(experiment: Experiment, stage: str) -> dict[str, Any]:
    return _values(experiment, setting_keys(experiment, stage))


def _values(experiment: Experiment, keys: Sequence[str]) -> dict[str, Any]:
    resolved = experiment.model_dump(mode="json")
    settings: dict[str, Any] = {}
    for key in keys:
        value: Any = resolved
        for part in key.split("."):
            value = value[part]
        settings.update(_flatten(key, value))
    return settings


def _judging_settings(experiment: Experiment, stage: str) -> tuple[str, ...]:
    """Settings that a judgement depends on, apart from the oracle's own."""
    judges = "oracle" in STAGES[stage].settings and experiment.oracle.kind == "policy_judge"
    return ("policy", "engine", "data.template_arguments") if judges else ()


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flatten(f"{key}.{name}", inner).items()}
    return {key: value}
