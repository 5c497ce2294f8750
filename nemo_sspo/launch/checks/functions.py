"""Checks of what is named by an import path: its form, and the packages that its environment must have."""

from collections.abc import Iterator
from typing import Literal

from nemo_sspo.config.binding import path_problems
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.functions import CustomFunction
from nemo_sspo.config.oracles import FunctionOracle


def check_functions(experiment: Experiment) -> Iterator[str]:
    """Import paths that are none; what they lead to is asked of their environment."""
    for key, path in _functions(experiment).items():
        yield from path_problems(path, key)


def packages(experiment: Experiment, environment: Literal["train", "rollout"]) -> list[str]:
    """Packages from which the stages of an environment import functions of the user's."""
    sections = {"train": ("loss", "repulsion"), "rollout": ("gate", "oracle")}[environment]
    functions = _functions(experiment)
    paths = [functions[key] for section in sections if (key := f"{section}.function") in functions]
    return [path.partition(":")[0].partition(".")[0] for path in paths if not list(path_problems(path, ""))]


def _functions(experiment: Experiment) -> dict[str, str]:
    return {
        f"{name}.function": part.function
        for name, part in experiment
        if isinstance(part, CustomFunction | FunctionOracle)
    }
