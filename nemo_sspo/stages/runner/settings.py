"""Which settings a stage depends on, resolved: those that an artifact is tied to, and the knobs that may change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nemo_sspo.artifacts.changes import CONTENT, flat
from nemo_sspo.artifacts.fingerprint import UNSEEN, fingerprint
from nemo_sspo.config.binding import module_file
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.roles import ImportPath, Knob, Role, SourcePath, WithoutEffect, roles
from nemo_sspo.stages.runner.registry import INTERVALS, MODEL, SAMPLING, STAGES

_RECIPE = (
    *SAMPLING,
    "prompts",
    "data",
    "further",
    "iterations",
    "oracle",
    "encoder",
    "judging",
    "pairs",
    "gate",
    "loss",
    "repulsion",
    "train",
    *MODEL,
)
"""All that a trained policy depends on, through the stages before its export."""


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
    if "iterations" in settings:  # a run that goes on with more leaves the portions it began with
        settings["iterations"] = experiment.first_iterations
    if settings.get("trainer") == "auto":  # known where a training stage runs, and nowhere else
        settings["trainer"] = UNSEEN
    return settings


def stage_knobs(experiment: Experiment, stage: str) -> dict[str, Any]:
    """The settings that a stage runs with and that may change in the middle of a run: recorded, never compared."""
    names = knob_names(experiment)
    return {key: value for key, value in _resolved(experiment, stage).items() if key in names}


def knob_names(settings: BaseModel) -> frozenset[str]:
    """All settings that may change in the middle of a run, by dotted key."""
    return frozenset(key for key, role in roles(settings).items() if _may_change(role))


def rounding_knobs(experiment: Experiment) -> frozenset[str]:
    """Those of them that change results, by rounding."""
    return frozenset(key for key, role in roles(experiment).items() if isinstance(role, Knob))


def source_settings(experiment: Experiment, stage: str) -> dict[str, str]:
    """The settings of a stage that name files outside the run, or ids in their place, by dotted key.

    Of a list each item has its place behind the key, from 1: ``prompts[2]``.
    """
    role_of = roles(experiment)
    named: dict[str, str] = {}
    for key, value in sorted(_resolved(experiment, stage).items()):
        if not isinstance(role_of.get(key), SourcePath) or value is None:
            continue
        if isinstance(value, list):
            named |= {f"{key}[{place}]": item for place, item in enumerate(value, start=1)}
        else:
            named[key] = value
    return named


def recipe_settings(experiment: Experiment) -> dict[str, Any]:
    """The resolved settings that a trained policy depends on, by dotted key. No file is looked at."""
    # Intervals decide whether a run ends early, and so which policies there are.
    selecting = ("selection", *INTERVALS) if experiment.selection.is_on else ()
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
        settings |= flat({key: value})
    return settings


def _judging_settings(experiment: Experiment, stage: str) -> tuple[str, ...]:
    """Settings that a judgement depends on, apart from the oracle's own."""
    judges = "oracle" in STAGES[stage].settings and experiment.oracle.kind == "policy_judge"
    return ("policy", "engine", "data.template_arguments") if judges else ()
