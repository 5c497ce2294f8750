"""Checks of the two environments: their interpreters start and find the packages their stages import."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.environments import Environment, SlurmEnvironment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.trainers import Trainer
from nemo_sspo.encoder.files import PACKAGE_PREFIX
from nemo_sspo.launch.checks.functions import packages
from nemo_sspo.stages.runner.importable import Kind, problems_there
from nemo_sspo.stages.runner.variables import of_process
from nemo_sspo.visible_gpus import visible_gpus

# Looks packages up without importing them; for torch also whether it is a CPU build (None: torch is missing), and where
# a trainer is given, whether its packages are of versions that it takes.
_PROBE = """
import importlib.util, json, pathlib, runpy, sys
trainer, *packages = sys.argv[1:]
missing = [name for name in packages if not importlib.util.find_spec(name)]
problems = []
if trainer and not missing:
    from nemo_sspo.megatron.installed import trainer_problems
    problems = trainer_problems(trainer)
torch = importlib.util.find_spec("torch")
version = pathlib.Path(torch.origin).with_name("version.py") if torch and torch.origin else None
no_cuda = runpy.run_path(str(version)).get("cuda") is None if version and version.exists() else None
print(json.dumps({"missing": missing, "no_cuda": no_cuda, "problems": problems}))
"""
_PROBE_SECONDS = 20
STAGE_PACKAGES: dict[Kind, tuple[str, ...]] = {
    "train": ("nemo_sspo", "torch", "megatron"),
    "rollout": ("nemo_sspo", "torch", "vllm", "transformers"),
}
"""What every run needs of an environment."""
LAYERS_PACKAGE = "transformer_engine"
"""Additional packages for training on GPUs, unless it uses local layers."""
JUDGE_PACKAGE = "openai"
"""Additional package for oracle=llm_judge."""
DATA_SET_PACKAGE = "datasets"
"""What reads a data set id; the environments for the CPU come without it."""


def check_environments(experiment: Experiment) -> Iterator[str]:
    """Ask both interpreters at once."""
    needed: dict[Kind, list[str]] = {name: list(packages) for name, packages in STAGE_PACKAGES.items()}
    encoder = experiment.encoder.path
    if encoder.startswith(PACKAGE_PREFIX):
        needed["rollout"].append(encoder.removeprefix(PACKAGE_PREFIX))
    needed["train"] += packages(experiment, "train")
    if experiment.trainer == "nemo":
        needed["train"].append("nemo")
    needed["rollout"] += packages(experiment, "rollout")
    cluster, on_gpus = experiment.cluster, _runs_on_gpus(experiment)
    if on_gpus and cluster.launcher != "fork" and experiment.train.layers == "auto":
        needed["train"].append(LAYERS_PACKAGE)
    if experiment.oracle.kind == "llm_judge":
        needed["rollout"].append(JUDGE_PACKAGE)
    if any(not is_on_disk(source) for source in record_sources(experiment)):
        needed["rollout"].append(DATA_SET_PACKAGE)
    here = [name for name in needed if starts_here(getattr(experiment.cluster, name))]
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda name: _problems(experiment, name, needed[name], on_gpus=on_gpus), here)
        yield from (problem for answer in answers for problem in answer)


def _problems(experiment: Experiment, name: Kind, needed: Sequence[str], *, on_gpus: bool) -> list[str]:
    environment = getattr(experiment.cluster, name)
    problem = _problem(name, environment, needed, experiment.trainer, on_gpus=on_gpus)
    return problems_there(experiment, name, environment) if problem is None else [problem]


def _runs_on_gpus(experiment: Experiment) -> bool:
    """Whether the interpreters need CUDA; not for a local cluster when this machine shows no GPU."""
    cluster = experiment.cluster
    return cluster.has_gpus and (isinstance(cluster, SlurmCluster) or bool(visible_gpus()))


def environment_problem(name: Kind, environment: Environment) -> str | None:
    """Why no stage of an environment can start on this machine; None where they can."""
    return _problem(name, environment, STAGE_PACKAGES[name], "auto")


def record_sources(experiment: Experiment) -> list[str]:
    """What is read record by record: files, directories or data set ids. All of it in the rollout environment."""
    given = (
        *experiment.prompt_sources,
        experiment.further.prompts,
        experiment.data.held_out_prompts,
        experiment.rollout.source,
        experiment.evaluation.labelled_pairs,
    )
    return [source for source in given if source is not None]


def starts_here(environment: Environment) -> bool:
    """Whether the stages will see this machine's packages: not with an image or environment modules."""
    return not isinstance(environment, SlurmEnvironment) or not (
        environment.image or environment.modules or environment.setup_file
    )


def _problem(
    name: Kind, environment: Environment, packages: Sequence[str], trainer: Trainer, *, on_gpus: bool = False
) -> str | None:
    setting = f"cluster.{name}.python={environment.python}"
    advice = f"`make environments` makes one here; NEMO_SSPO_{name.upper()}_PYTHON names another"
    if shutil.which(environment.python) is None:
        return f"{setting}: no such interpreter; {advice}"
    try:
        answer = subprocess.run(
            [environment.python, "-c", _PROBE, trainer if name == "train" else "", *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            env=of_process(environment.variables, gpus=()),
            check=True,
        )
        found = json.loads(answer.stdout)
        missing, no_cuda = found["missing"], found["no_cuda"]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"{setting}: does not start as a Python interpreter ({type(error).__name__}); {advice}"
    if not missing and on_gpus and no_cuda:
        return (
            f"{setting}: its torch is built without CUDA, so that its stages would run on the processor beside the "
            f"GPUs; NEMO_SSPO_{name.upper()}_PYTHON names another, cluster=local_cpu means the processor"
        )
    if not missing:
        return next((f"{setting}: {problem}" for problem in found["problems"]), None)
    if not set(missing) & set(
        STAGE_PACKAGES[name]
    ):  # an environment of this project, but it lacks something that this run needs
        install = f"{environment.python} -m pip install {' '.join(missing)}"
        advice = f"{install}, or PYTHONPATH for code of your own"
    if missing == [LAYERS_PACKAGE]:
        advice = "README.md has its install line; train.layers=local takes Megatron's slower local layers on the GPU"
    return f"{setting}: lacks {', '.join(missing)}; {advice}"
