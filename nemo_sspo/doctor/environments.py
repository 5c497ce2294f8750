"""Both environments as they are: each interpreter is asked what it has and what of it loads."""

import json
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemo_sspo.config.environments import Environment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.checks.environments import environment_problem, starts_here
from nemo_sspo.stages.runner.importable import Kind
from nemo_sspo.stages.runner.variables import of_process

NAMES: tuple[Kind, ...] = ("train", "rollout")
PROBE_SECONDS = 120
"""An import that takes longer waits for something: most often the lock of a compilation that was killed."""

_ELSEWHERE = (
    "cluster.{name} starts in an image or with environment modules: on a node, by srun with that image or behind "
    "`module load`, run `nemo-sspo doctor cluster.train.python=python cluster.rollout.python=python`"
)

Facts = dict[str, Any]
"""What `probe` printed; only ``problem``, one line, where there is no such environment."""


def look_at(experiment: Experiment) -> dict[str, Facts]:
    """The facts of both environments, asked at once."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _facts(name, getattr(experiment.cluster, name)), NAMES)
        return dict(zip(NAMES, found, strict=True))


def usable(environments: Mapping[str, Facts]) -> set[str]:
    """Names of the environments whose stages can start."""
    return {name for name, facts in environments.items() if "problem" not in facts}


def with_earlier(environments: dict[str, Facts], file: Path) -> dict[str, Facts]:
    """The same; an environment that is not here takes its facts from `file`, written by a call in another image."""
    seen = json.loads(file.read_text()) if file.exists() else {}
    here = usable(environments)
    return {name: facts if name in here else seen.get(name, facts) for name, facts in environments.items()}


def _facts(name: Kind, environment: Environment) -> Facts:
    if not starts_here(environment):
        return {"problem": _ELSEWHERE.format(name=name)}
    if (problem := environment_problem(name, environment)) is not None:
        return {"problem": problem}
    try:
        answer = subprocess.run(
            [environment.python, "-m", "nemo_sspo.doctor.probe", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env=of_process(environment.variables, gpus=None),
            check=True,
        )
        return json.loads(answer.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {
            "problem": f"its packages are still being imported after {PROBE_SECONDS} s: another process may hold, or a "
            "killed one have left, the lock of a compilation; look for files named lock below TORCH_EXTENSIONS_DIR "
            "(without it ~/.cache/torch_extensions)"
        }
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return {"problem": f"it does not start ({type(error).__name__})"}
