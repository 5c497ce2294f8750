"""A command's question to the training or the rollout environment: a program there, whose last line is the answer."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from nemo_sspo.config.environments import Environment
from nemo_sspo.errors import UserError, one_line
from nemo_sspo.launch.checks.environments import environment_problem, starts_here
from nemo_sspo.stages.runner.variables import of_process

_SECONDS = 1800


def ask(
    name: Any, environment: Environment, module: str, arguments: Sequence[str], command: str, seconds: int = _SECONDS
) -> dict[str, Any]:
    """The JSON that `python -m module` prints in that environment, for a ``nemo-sspo`` command of this name.

    Raises:
        UserError: the environment is not here, or the program failed.
    """
    refuse_elsewhere(name, environment, command)
    try:
        answer = subprocess.run(
            [environment.python, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=of_process(environment.variables, gpus=None),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the {name} environment gave no answer in {seconds} s") from None
    if answer.returncode:
        said = answer.stderr.strip().splitlines() or ["it said nothing"]
        raise UserError(f"the {name} environment failed to measure: {one_line(said[-1])}")
    return json.loads(answer.stdout.splitlines()[-1])


def refuse_elsewhere(name: Any, environment: Environment, command: str) -> None:
    """Raise UserError where an environment does not start on this machine, for a ``nemo-sspo`` command of this name."""
    if not starts_here(environment):
        raise UserError(
            f"cluster.{name} starts in an image or with environment modules: on a node, in that image, run `nemo-sspo "
            f"{command} cluster.train.python=python cluster.rollout.python=python …`"
        )
    if (problem := environment_problem(name, environment)) is not None:
        raise UserError(problem)
