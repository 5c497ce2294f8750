"""Checks of the model directories: their small JSON files and the headers of their weights, never a tensor."""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.json_files import read_json, read_json_object
from nemo_sspo.artifacts.sources.models import is_hub_id
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.encoder.files import PACKAGE_PREFIX, backbone_folders, encoder_problems
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.layout import layout_problems, mixture_problems
from nemo_sspo.megatron.models.shape import import_problems
from nemo_sspo.stages.sampling.engine_limits import engine_problems
from nemo_sspo.tokens.files import tokenizer_file
from nemo_sspo.tokens.lengths import length_problems
from nemo_sspo.tokens.policy_files import policy_problems
from nemo_sspo.tokens.vocabulary import read_vocabulary

_ENCODERS_WITH_CODE = ("jinaai/jina-embeddings-v3", "nomic-ai/nomic-embed-text-v1.5")
"""Hub ids of the presets in conf/encoder that do not load without their own code."""


def check_policy(experiment: Experiment) -> Iterator[str]:
    """The policy is a supported architecture with whole weights, a tokenizer and a chat template, and can be split."""
    directory = local_directory("policy", experiment.policy)
    if directory is None:
        return
    config = read_hf_config(directory)
    refused = list(import_problems(f"policy={directory}", directory, config))
    yield from refused
    try:
        yield from layout_problems(config, experiment.parallel)
        yield from mixture_problems(
            config, experiment.parallel, experiment.train, experiment.precision, experiment.trainer
        )
        yield from engine_problems(config, experiment.engine, on_cpu=not experiment.cluster.has_gpus)
    except UserError as error:
        yield from () if str(error) in refused else (str(error),)
    yield from length_problems(experiment, directory)
    if tokenizer_file(directory) is None:
        yield f"policy={directory}: no tokenizer beside the weights"
    else:
        yield from policy_problems(directory, experiment.data.template_arguments)


def check_encoder(experiment: Experiment) -> Iterator[str]:
    """The encoder's directory holds a model that can encode. A package's is looked at in its environment."""
    path = experiment.encoder.path
    if path.startswith(PACKAGE_PREFIX):
        return
    directory = local_directory("encoder.path", path)
    if not experiment.encoder.trust_remote_code and _brings_code(path, directory):
        yield (
            f"encoder.path={path}: the model brings Python code of its own; read it, then give "
            "encoder.trust_remote_code=true"
        )
    elif directory is not None:
        problems = list(encoder_problems(directory, experiment.encoder))
        yield from problems
        if not problems and not experiment.encoder.trust_remote_code:
            for folder in backbone_folders(directory):
                read_vocabulary(folder)  # refuses a tokenizer of a kind whose ids cannot be known


def _brings_code(path: str, directory: Path | None) -> bool:
    """Whether an encoder's modules or backbone are defined beside its weights."""
    if directory is None:
        return path in _ENCODERS_WITH_CODE
    config, modules = directory / "config.json", directory / "modules.json"
    found = read_json(modules) if modules.is_file() else []
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise UserError(f"{modules}: expected a list of the model's modules")
    types = [str(module.get("type")) for module in found]
    foreign = any(not name.startswith("sentence_transformers.") for name in types)
    return foreign or (config.is_file() and "auto_map" in read_json_object(config))


def local_directory(setting: str, path: str) -> Path | None:
    """The directory, or None for a hub id: that is fetched by the first stage that needs it."""
    directory = Path(path)
    if directory.is_dir():
        return directory
    if is_hub_id(path):
        return None
    if directory.is_file():
        raise UserError(f"{setting}={path}: is a file; give the directory of a model")
    raise UserError(f"{setting}={path}: no such directory, and not a hub id (owner/name)")
