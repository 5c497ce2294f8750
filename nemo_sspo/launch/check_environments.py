"""Checks of the two environments: their interpreters start and find the packages their stages import."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from nemo_sspo.artifacts.records import is_on_disk
from nemo_sspo.config.cluster import Environment, SlurmEnvironment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.check_functions import packages
from nemo_sspo.stages.variables import of_process

# Looks packages up without importing them.
_PROBE = "import importlib.util as u, json, sys; print(json.dumps([n for n in sys.argv[1:] if not u.find_spec(n)]))"
_PROBE_SECONDS = 20
_NEEDED = {
    "train": ("nemo_sspo", "torch", "megatron", "nemo"),
    "rollout": ("nemo_sspo", "torch", "vllm", "transformers"),
}

JUDGE_PACKAGE = "openai"
"""What oracle=llm_judge needs besides."""
DATA_SET_PACKAGE = "datasets"
"""What reads a data set id; the environments for the CPU come without it."""


def check_environments(experiment: Experiment) -> Iterator[str]:
    """Ask both interpreters at once."""
    needed = {name: list(packages) for name, packages in _NEEDED.items()}
    encoder = experiment.encoder.path
    if encoder.startswith("package:"):
        needed["rollout"].append(encoder.removeprefix("package:"))
    needed["train"] += packages(experiment, "train")
    needed["rollout"] += packages(experiment, "rollout")
    if experiment.oracle.kind == "llm_judge":
        needed["rollout"].append(JUDGE_PACKAGE)
    if any(not is_on_disk(source) for source in record_sources(experiment)):
        needed["rollout"].append(DATA_SET_PACKAGE)
    here = [name for name in needed if _starts_here(getattr(experiment.cluster, name))]
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda name: _problem(name, getattr(experiment.cluster, name), needed[name]), here)
        yield from (answer for answer in answers if answer is not None)


def environment_problem(name: str, environment: Environment) -> str | None:
    """Why no stage of an environment can start on this machine; None where they can."""
    return _problem(name, environment, _NEEDED[name])


def record_sources(experiment: Experiment) -> list[str]:
    """What is read record by record: files, directories or data set ids. All of it in the rollout environment."""
    given = (
        experiment.prompts,
        experiment.data.held_out_prompts,
        experiment.rollout.source,
        experiment.evaluation.labelled_pairs,
    )
    return [source for source in given if source is not None]


def _starts_here(environment: Environment) -> bool:
    """Whether this machine has what the stages will have: not the inside of an image, nor what a module brings."""
    return not isinstance(environment, SlurmEnvironment) or not (
        environment.image or environment.modules or environment.setup_file
    )


def _problem(name: str, environment: Environment, packages: Sequence[str]) -> str | None:
    setting = f"cluster.{name}.python={environment.python}"
    advice = f"`make environments` makes one here; NEMO_SSPO_{name.upper()}_PYTHON names another"
    if shutil.which(environment.python) is None:
        return f"{setting}: no such interpreter; {advice}"
    try:
        answer = subprocess.run(
            [environment.python, "-c", _PROBE, *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            env=of_process(environment.variables, gpus=()),
            check=True,
        )
        missing = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"{setting}: does not start as a Python interpreter ({type(error).__name__}); {advice}"
    if not missing:
        return None
    if not set(missing) & set(_NEEDED[name]):  # an environment of this project, and something of this run's besides
        install = f"{environment.python} -m pip install {' '.join(missing)}"
        advice = f"{install}, or PYTHONPATH for code of your own"
    return f"{setting}: lacks {', '.join(missing)}; {advice}"
