"""Which stages there are, what each reads, and which settings it depends on. Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.changes import CONTENT
from nemo_sspo.artifacts.fingerprint import UNSEEN, fingerprint
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.binding import module_file
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.roles import ImportPath, Knob, Role, SourcePath, WithoutEffect, roles

Inputs = dict[str, list[Path]]


@dataclass(frozen=True)
class StageSpec:
    """What the launcher has to know of a stage."""

    module: str
    """Module below nemo_sspo/stages that holds ``run(context)``."""
    environment: Literal["train", "rollout"]
    settings: tuple[str, ...]
    """Dotted configuration keys whose change invalidates the artifact."""
    sharded: bool = False
    ranks: bool = False
    """Runs under one process per rank of the training layout."""
    gpu: bool = False
    """Needs an accelerator where there is one."""
    one_model: bool = True
    """Its shards load the same model, so that one process may take several of them with it loaded once."""


SAVES_STATE = frozenset({"train"})
"""Stages that save their state when they are told to stop. The others end at once: their step is run again."""

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
_OF_SELECTION: Mapping[str, tuple[str, ...]] = {
    "prepare_prompts": ("selection.prompts",),
    "train": ("selection.candidates",),
    "select_model": ("selection",),
}
"""Settings that stages depend on where an iteration has a choice of checkpoints; elsewhere they have no effect."""
_REFERENCE = (
    *("train.reference", "train.reference_source", "train.reference_check_share", "train.reference_tolerance"),
    *("train.packing", "train.pack_tokens", "train.micro_batch_size", "train.share_prompt", "train.layers"),
    "train.head_chunk_tokens",
)

STAGES: Mapping[str, StageSpec] = {
    "prepare_prompts": StageSpec(
        "sampling.prepare_prompts", "rollout", ("policy", "prompts", "data", "seed", "iterations")
    ),
    "import_policy": StageSpec("training.import_policy", "train", ("policy", "precision")),
    "rollout": StageSpec("sampling.rollout", "rollout", _SAMPLING, sharded=True, gpu=True),
    "rollout_held_out": StageSpec(
        "sampling.rollout", "rollout", (*_SAMPLING, "evaluation.best_of_n"), sharded=True, gpu=True
    ),
    "score": StageSpec("sampling.score", "rollout", ("oracle", "judging"), sharded=True, gpu=True),
    "embed": StageSpec("sampling.embed", "rollout", ("encoder", "judging"), sharded=True, gpu=True),
    "build_pairs": StageSpec("pairs.build_pairs", "rollout", ("pairs", "gate", "judging")),
    "score_labelled": StageSpec("pairs.score_labelled", "rollout", ("oracle", "evaluation.labelled_pairs"), gpu=True),
    "diagnose": StageSpec("pairs.diagnose", "rollout", ("pairs", "gate", "judging", "seed")),
    "reference_logps": StageSpec(
        "training.reference_logps",
        "train",
        (*_REFERENCE, "seed", *_MODEL),
        ranks=True,
        gpu=True,
    ),
    "train": StageSpec(
        "training.train", "train", ("train", "loss", "repulsion", "seed", *_MODEL), ranks=True, gpu=True
    ),
    "export_candidate": StageSpec("training.export", "train", ("policy",), sharded=True, one_model=False),
    "rollout_selection": StageSpec("sampling.rollout", "rollout", _SAMPLING, sharded=True, gpu=True, one_model=False),
    "select_model": StageSpec(
        "evaluation.select_model", "rollout", ("oracle", "judging", *_INTERVALS, "seed"), gpu=True
    ),
    "export": StageSpec("training.export", "train", ("policy",)),
    "evaluate": StageSpec("evaluation.evaluate", "rollout", ("oracle", "judging", "evaluation", "seed"), gpu=True),
}
"""Every stage of the loop. Held-out rollouts are one shard: they are few, and an evaluation reads them whole. A shard
of export_candidate and of rollout_selection is a candidate; the base policy is one alone."""


def stage_inputs(stage: str, experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Directories of the artifacts that a step reads, by name."""
    match stage:
        case "rollout":
            return _sampling_inputs(layout, policy=iteration - 1)
        case "rollout_held_out":
            return _sampling_inputs(layout, policy=iteration)
        case "rollout_selection":
            sampling = {} if iteration == 0 else {"policy": [layout.artifact("export_candidate", iteration, shard)]}
            return {"prompts": [layout.artifact("prepare_prompts")], **sampling}
        case "score":
            rollout = {"rollout": [layout.artifact("rollout", iteration, shard)]}
            return rollout | _judging_inputs(experiment, layout, iteration)
        case "embed":
            return {"rollout": [layout.artifact("rollout", iteration, shard)]}
        case "build_pairs":
            shards = range(experiment.rollout.shards)
            return {
                name: [layout.artifact(name, iteration, shard) for shard in shards]
                for name in ("rollout", "score", "embed")
            }
        case "diagnose":
            pairs = {"build_pairs": [layout.artifact("build_pairs", iteration)]}
            labelled = {"score_labelled": [layout.artifact("score_labelled", 0)]}
            inputs = stage_inputs("build_pairs", experiment, layout, iteration, shard) | pairs
            return inputs | labelled if experiment.evaluation.labelled_pairs else inputs
        case "reference_logps":
            reference = 0 if experiment.train.reference == "base" else iteration - 1
            inputs = {
                "build_pairs": [layout.artifact("build_pairs", iteration)],
                **_policy_inputs(experiment, layout, reference),
            }
            if experiment.train.reference_source == "rollout_checked":
                shards = range(experiment.rollout.shards)
                inputs["rollout"] = [layout.artifact("rollout", iteration, shard) for shard in shards]
            return inputs
        case "train":
            return {
                "build_pairs": [layout.artifact("build_pairs", iteration)],
                "reference_logps": [layout.artifact("reference_logps", iteration)],
                **_policy_inputs(experiment, layout, iteration - 1),
            }
        case "export_candidate":
            return {"checkpoint": [layout.artifact("train", iteration)]}
        case "select_model":
            return _selection_inputs(experiment, layout, iteration) | _judging_inputs(experiment, layout, iteration)
        case "export":
            return {
                **_policy_inputs(experiment, layout, iteration),
                "build_pairs": [layout.artifact("build_pairs", iteration)],
                "prompts": [layout.artifact("prepare_prompts")],
            }
        case "evaluate":
            *earlier, new = (layout.artifact("rollout_held_out", policy, 0) for policy in range(iteration + 1))
            return {"new": [new], "earlier": earlier} | _judging_inputs(experiment, layout, iteration)
        case _:
            return {}


def _sampling_inputs(layout: RunLayout, policy: int) -> Inputs:
    """Prompts, and the export of the policy that samples; policy 0 is the experiment's own, which is no artifact."""
    prompts = {"prompts": [layout.artifact("prepare_prompts")]}
    return {**prompts, "policy": [layout.artifact("export", policy)]} if policy > 0 else prompts


def _judging_inputs(experiment: Experiment, layout: RunLayout, iteration: int) -> Inputs:
    """The export of the policy that judges an iteration, where the oracle is the policy it starts from."""
    oracle = experiment.oracle
    if oracle.kind != "policy_judge" or oracle.judge == "base" or iteration == 1:
        return {}
    return {"policy": [layout.artifact("export", iteration - 1)]}


def _policy_inputs(experiment: Experiment, layout: RunLayout, policy: int) -> Inputs:
    """Where the NeMo checkpoint of a policy lies, and the choice among several (`chosen.policy_checkpoint`)."""
    if policy == 0:
        return {"checkpoint": [layout.artifact("import_policy", 0)]}
    trained = {"checkpoint": [layout.artifact("train", policy)]}
    return trained | ({"selection": [layout.artifact("select_model", policy)]} if experiment.selection.is_on else {})


def _selection_inputs(experiment: Experiment, layout: RunLayout, iteration: int) -> Inputs:
    """Responses of the candidates, and of those before them, one of which the iteration started from."""
    shards = range(experiment.selection.candidates)
    inputs = {
        "train": [layout.artifact("train", iteration)],
        "candidates": [layout.artifact("rollout_selection", iteration, shard) for shard in shards],
    }
    if iteration == 1:
        return inputs | {"before": [layout.artifact("rollout_selection", 0, 0)]}
    before = [layout.artifact("rollout_selection", iteration - 1, shard) for shard in shards]
    return inputs | {"before": before, "selection": [layout.artifact("select_model", iteration - 1)]}


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


def _resolved(experiment: Experiment, stage: str) -> dict[str, Any]:
    selecting = _OF_SELECTION.get(stage, ()) if experiment.selection.is_on else ()
    return _values(experiment, (*STAGES[stage].settings, *selecting, *_judging_settings(experiment, stage)))


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
    """What a judgement depends on besides the oracle's own settings."""
    judges = "oracle" in STAGES[stage].settings and experiment.oracle.kind == "policy_judge"
    return ("policy", "engine", "data.template_arguments") if judges else ()


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in _flatten(f"{key}.{name}", inner).items()}
    return {key: value}
