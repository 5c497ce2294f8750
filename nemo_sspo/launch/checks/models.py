"""Checks of the model directories: their small JSON files and the headers of their weights, never a tensor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.sources.models import is_hub_id
from nemo_sspo.artifacts.sources.weight_files import policy_weight_problems
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Parallel
from nemo_sspo.encoder.files import encoder_problems
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.lengths import length_problems
from nemo_sspo.tokens.policy_files import policy_problems

SUPPORTED_MODEL_TYPES = ("gemma2", "llama", "mistral", "qwen2", "qwen3")
"""``model_type`` values that megatron/models/families.py can import, train and export."""
_ENCODERS_WITH_CODE = ("jinaai/jina-embeddings-v3", "nomic-ai/nomic-embed-text-v1.5")
"""Hub ids of the presets in conf/encoder that do not load without their own code."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
_VOCABULARY_MULTIPLE = 128


def check_policy(experiment: Experiment) -> Iterator[str]:
    """The policy is a supported architecture with whole weights, a tokenizer and a chat template, and can be split."""
    directory = local_directory("policy", experiment.policy)
    if directory is None:
        return
    config = json_object(directory / "config.json", "give a Hugging Face model directory or hub id")
    if config.get("model_type") not in SUPPORTED_MODEL_TYPES:
        yield (
            f"{directory / 'config.json'}: model_type {config.get('model_type')!r} is not supported; supported: "
            f"{', '.join(SUPPORTED_MODEL_TYPES)}"
        )
    else:
        yield from _indivisible(directory / "config.json", config, experiment.parallel)
    yield from policy_weight_problems(f"policy={directory}", directory, config)
    yield from length_problems(experiment, directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        yield f"policy={directory}: no tokenizer (none of {', '.join(TOKENIZER_FILES)})"
    else:
        yield from policy_problems(directory, experiment.data.template_arguments)


def check_encoder(experiment: Experiment) -> Iterator[str]:
    """The encoder's directory holds a model that can encode. A package is looked for in its environment alone."""
    path = experiment.encoder.path
    if path.startswith("package:"):
        return
    directory = local_directory("encoder.path", path)
    if directory is not None and not any((directory / name).is_file() for name in ("modules.json", "config.json")):
        yield f"encoder.path={path}: neither modules.json nor config.json; give a sentence-transformers model"
    elif not experiment.encoder.trust_remote_code and _brings_code(path, directory):
        yield (
            f"encoder.path={path}: the model brings Python code of its own; read it, then give "
            "encoder.trust_remote_code=true"
        )
    elif directory is not None:
        yield from encoder_problems(directory, experiment.encoder)


def _brings_code(path: str, directory: Path | None) -> bool:
    """Whether an encoder's modules or backbone are defined beside its weights."""
    if directory is None:
        return path in _ENCODERS_WITH_CODE
    config, modules = directory / "config.json", directory / "modules.json"
    found = _json(modules, "") if modules.is_file() else []
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise UserError(f"{modules}: expected a list of the model's modules")
    types = [str(module.get("type")) for module in found]
    foreign = any(not name.startswith("sentence_transformers.") for name in types)
    return foreign or (config.is_file() and "auto_map" in json_object(config, ""))


def policy_bytes(experiment: Experiment) -> int:
    """Size of a local policy's weights; 0 where it is not known."""
    directory = Path(experiment.policy)
    return sum(path.stat().st_size for path in directory.glob("*.safetensors") if path.is_file())


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


def json_object(path: Path, advice: str) -> dict[str, Any]:
    """A JSON file that holds an object; a UserError otherwise."""
    value = _json(path, advice)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def _json(path: Path, advice: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name}; {advice}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def _indivisible(path: Path, config: dict[str, Any], parallel: Parallel) -> Iterator[str]:
    """Heads, key-value heads, vocabulary and layers must divide over the ranks."""
    vocabulary = config.get("vocab_size")
    padded = -(-vocabulary // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE if isinstance(vocabulary, int) else None
    chunks = parallel.pipeline * (parallel.virtual_pipeline or 1)
    heads = config.get("num_attention_heads")
    for name, count, parts, setting in (
        ("num_attention_heads", heads, parallel.tensor, f"parallel.tensor={parallel.tensor}"),
        ("num_key_value_heads", config.get("num_key_value_heads", heads), parallel.tensor, ""),
        ("vocab_size (padded to 128)", padded, parallel.tensor, f"parallel.tensor={parallel.tensor}"),
        ("num_hidden_layers", config.get("num_hidden_layers"), chunks, "parallel.pipeline x virtual_pipeline"),
    ):
        if not isinstance(count, int):
            yield f"{path}: {name.split()[0]} is missing; it must hold a complete Hugging Face model config"
        elif name == "num_key_value_heads" and parts % count == 0:
            continue  # Megatron replicates key-value heads over the tensor-parallel ranks
        elif count % parts:
            setting = setting or f"parallel.tensor={parallel.tensor}"
            yield f"{path}: {name}={count} does not divide over {setting} ({parts} parts); choose a divisor of {count}"
