"""Whether an environment's stages can import what the settings name: functions, loggers and a package's encoder.

A dry run asks the environment's own interpreter, by starting this module; the first stage of each environment asks
itself, for a run whose environments lie in an image or on another machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

from nemo_sspo.config.binding import bind, import_function
from nemo_sspo.config.environments import Environment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.functions import CustomFunction
from nemo_sspo.config.oracles import FunctionOracle
from nemo_sspo.encoder.files import PACKAGE_PREFIX, package_problems
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.observers.loggers import require_loggers
from nemo_sspo.stages.runner.variables import of_process

Kind = Literal["train", "rollout"]

SECONDS = 25
"""That the import of the user's modules may take."""


def refuse_unimportable(experiment: Experiment, kind: Kind) -> None:
    """Raise a UserError for the first thing that the stages of this environment cannot import."""
    for problem in import_problems(experiment, kind):
        raise UserError(problem)


def import_problems(experiment: Experiment, kind: Kind) -> Iterator[str]:
    """What the stages of this environment cannot import, which is the environment of this process."""
    for part in custom_parts(experiment, kind):
        try:
            if isinstance(part, FunctionOracle):
                import_function(part.function, "oracle.function")
            else:
                bind(part, {})
        except UserError as error:
            yield str(error)
    try:
        if kind == "train":
            require_loggers(experiment.train.loggers)
        else:
            yield from package_problems(experiment.encoder)
    except UserError as error:
        yield str(error)


def custom_parts(experiment: Experiment, kind: Kind) -> list[CustomFunction | FunctionOracle]:
    """Parts of a run that are functions of the user's, imported in this environment."""
    parts: dict[Kind, tuple[Any, ...]] = {
        "train": (experiment.loss, experiment.repulsion),
        "rollout": (experiment.gate, experiment.oracle),
    }
    return [part for part in parts[kind] if isinstance(part, CustomFunction | FunctionOracle)]


def problems_there(experiment: Experiment, kind: Kind, environment: Environment) -> list[str]:
    """`import_problems` of an environment of this machine."""
    beside = {"train": bool(experiment.train.loggers), "rollout": experiment.encoder.path.startswith(PACKAGE_PREFIX)}
    if not custom_parts(experiment, kind) and not beside[kind]:
        return []
    setting = f"cluster.{kind}.python={environment.python}"
    try:
        answer = subprocess.run(
            [environment.python, "-m", __name__, kind],
            input=experiment.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=of_process(environment.variables, gpus=()),
            check=True,
        )
        return [str(problem) for problem in json.loads(answer.stdout)]
    except subprocess.TimeoutExpired:
        return [f"{setting}: what the settings name is not imported within {SECONDS} s; see what its modules wait for"]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return [f"{setting}: ends while it imports what the settings name ({type(error).__name__})"]


def _main(kind: Kind) -> None:
    """Print the problems; what the modules print themselves goes elsewhere."""
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    experiment = Experiment.model_validate_json(sys.stdin.read())
    os.write(answer, json.dumps(list(import_problems(experiment, kind))).encode())
    os._exit(0)  # whatever the modules have started


if __name__ == "__main__":
    _main("train" if sys.argv[1] == "train" else "rollout")
