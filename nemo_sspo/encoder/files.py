"""A sentence-transformers model on disk, checked before it is loaded: its JSON files and weights' headers. No torch."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.json_files import json_or_empty, read_json
from nemo_sspo.artifacts.sources.models import CODE, MODEL_FILES, local_model
from nemo_sspo.artifacts.sources.weight_headers import (
    files_of_transformers,
    model_headers,
    tensor_headers,
    unmerged_adapter,
    weight_problems,
)
from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.errors import UserError

PACKAGE_PREFIX = "package:"
_LAYERS_BEHIND = "*/pytorch_model.bin"
"""Weights of a folder like 2_Dense, which often are no safetensors where the transformer's are."""
_MODEL_TYPE = "SentenceTransformer"
_OWN_CODE = "sentence_transformers."
"""Packages whose modules need no consent of the user."""
_INPUTS = ("Transformer", "CLIPModel")
_ONE_VECTOR = ("Pooling", "StaticEmbedding", "BoW", "CLIPModel")
"""Modules that make one vector of a text."""
_ROUTERS = ("Router", "Asym")
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_POSITIONS = ("position_embeddings.weight", "wpe.weight", "text_model.embeddings.position_embedding.weight")
"""Names of a table with one row a position."""
_PADDED_POSITIONS = ("camembert", "longformer", "mpnet", "roberta", "xlm-roberta")
"""Model types that count positions from the one after the padding token's id."""
_STATIC_TENSORS = ({"embedding.weight"}, {"embeddings", "mapping", "weights"})
"""Files that a StaticEmbedding reads: sentence-transformers' own form, or model2vec's."""


def encoder_problems(directory: Path, settings: SentenceEncoder) -> Iterator[str]:
    """Reasons why sentence-transformers cannot encode with a model, or would not follow the model's files."""
    named = f"encoder.path={settings.path}"
    try:
        yield from _problems(named, directory, settings)
    except (TypeError, AttributeError, ValueError, KeyError, IndexError) as error:
        yield (
            f"{named}: a value in its JSON files is of another kind than sentence-transformers writes "
            f"({type(error).__name__}: {error}); fetch the model again"
        )


def _problems(named: str, directory: Path, settings: SentenceEncoder) -> Iterator[str]:
    if adapter := unmerged_adapter(directory):
        yield f"{named}: {adapter} asks for an adapter that is not merged; merge it into the model and save that"
        return
    yield from _prompt_problems(named, json_or_empty(directory / "config_sentence_transformers.json"), settings)
    if not (directory / "modules.json").is_file():
        if (directory / "config.json").is_file():
            yield from _transformer_problems(named, directory)
        else:
            yield f"{named}: neither modules.json nor config.json; give a sentence-transformers model"
        return
    modules = read_json(directory / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules) or not modules:
        yield f"{directory / 'modules.json'}: not a list of modules"
        return
    chain = _chain(modules, directory)
    knows_tasks = any("task" in (module.get("kwargs") or ()) for module in modules)
    knows_tasks |= any(_is_foreign(kind) or _name(kind) in _ROUTERS for kind, _ in chain)
    if settings.task is not None and not knows_tasks:
        yield f"encoder.task={settings.task}: the model knows no tasks; a prefix is set by encoder.prefix"
    yield from _chain_problems(named, chain, settings.task)


def model_directory(path: str, *, code: bool = False) -> Path:
    """Directory of an encoder: a local one, a hub snapshot (with its `code`, if it is to run), or ``package:<name>``'s
    own ``get_model_path()``."""
    if not path.startswith(PACKAGE_PREFIX):
        files = (*MODEL_FILES, _LAYERS_BEHIND, *([CODE] if code else []))
        return local_model(path, "encoder.path", files, pickles=True)
    name = path.removeprefix(PACKAGE_PREFIX)
    try:
        directory = Path(import_module(name).get_model_path())
    except ModuleNotFoundError:
        raise UserError(f"encoder.path={path}: the package {name} is not installed; pip install it") from None
    except AttributeError:
        raise UserError(f"encoder.path={path}: the package {name} has no get_model_path()") from None
    except Exception as error:  # a package's own code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"encoder.path={path}: the package {name} fails ({reason}); install it anew") from None
    if not directory.is_dir():
        raise UserError(f"encoder.path={path}: the package {name} has no directory {directory}; install it anew")
    return directory


def package_problems(settings: SentenceEncoder) -> Iterator[str]:
    """What is wrong with the encoder of a package, in an environment that has it; nothing for another encoder."""
    if settings.path.startswith(PACKAGE_PREFIX):
        yield from encoder_problems(model_directory(settings.path), settings)


def default_prompt(directory: Path) -> str:
    """The default prompt that a model puts before a text; empty if there is none."""
    config = json_or_empty(directory / "config_sentence_transformers.json")
    prompts = config.get("prompts")
    return str(prompts.get(str(config.get("default_prompt_name"))) or "") if isinstance(prompts, dict) else ""


def route(routes: Mapping[str, object], parameters: Mapping[str, Any], task: str | None) -> str | None:
    """The route of a Router that a text takes under a task, as sentence-transformers chooses it."""
    mappings = {str(key): name for key, name in (parameters.get("route_mappings") or {}).items()}
    for key in ((task, "text"), (task, None), (None, "text"), (None, None)):
        if str(key) in mappings:
            return mappings[str(key)]
    if task in routes or "text" in routes:
        return task if task in routes else "text"
    if task is not None:
        return None
    first = next(iter(routes), None) if parameters.get("allow_empty_key", True) else None
    return parameters.get("default_route") or first


def backbone_folders(directory: Path) -> Iterator[Path]:
    """Folders of the models of transformers inside of a sentence-transformers model, in the order of its modules."""
    file = directory / "modules.json"
    for kind, folder in _chain(read_json(file), directory) if file.is_file() else [("Transformer", directory)]:
        if _name(kind) in _ROUTERS:
            types = _router_config(folder).get("types") or {}
            yield from (folder / name for name, inner in types.items() if _name(str(inner)) in _INPUTS)
        elif _name(kind) in _INPUTS:
            yield folder


def _prompt_problems(named: str, config: Mapping[str, Any], settings: SentenceEncoder) -> Iterator[str]:
    if (kind := config.get("model_type", _MODEL_TYPE)) != _MODEL_TYPE:
        yield f"{named}: a {kind}, whose vectors sentence-transformers would make in another way; give a {_MODEL_TYPE}"
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    known = ", ".join(sorted(prompts)) or "none"
    if settings.prompt_name is not None and settings.prompt_name not in prompts:
        yield f"encoder.prompt_name={settings.prompt_name}: the model has no such prompt; it has {known}"
    if default is not None and default not in {"query", "document", *prompts}:
        yield f"{named}: default_prompt_name is {default}, which is none of its prompts ({known})"


def _chain_problems(named: str, chain: list[tuple[str, Path]], task: str | None) -> Iterator[str]:
    """Problems of modules that are applied one after another."""
    if any(_is_foreign(kind) for kind, _ in chain):
        return  # modules of custom code cannot be checked here
    names = [_name(kind) for kind, _ in chain]
    if names[0] in _ROUTERS:
        yield from _router_problems(named, chain, task)
        return
    if names[0] in _INPUTS:
        yield from _transformer_problems(named, chain[0][1])
    if names[0] == "StaticEmbedding":
        yield from _static_problems(named, chain[0][1])
    whole = _transformer_config(chain[0][1]).get("module_output_name") == "sentence_embedding"
    if not whole and not any(name in _ONE_VECTOR for name in names):
        yield (
            f"{named}: modules.json has no Pooling, nor another module that makes one vector of a text; give a "
            "sentence-transformers model"
        )


def _router_problems(named: str, chain: list[tuple[str, Path]], task: str | None) -> Iterator[str]:
    """One route must accept a response; it is then checked like a separate model."""
    directory = chain[0][1]
    config = _router_config(directory)
    routes, types = config.get("structure") or {}, config.get("types") or {}
    taken = route(routes, config.get("parameters") or {}, task)
    if taken not in routes:
        known = ", ".join(routes) or "none"
        yield f"encoder.task={task}: the model encodes a text by one of its routes ({known}); set encoder.task to one"
        return
    inner = [(str(types.get(name)), directory / name) for name in routes[taken]]
    yield from _chain_problems(named, [*inner, *chain[1:]], task)


def _transformer_problems(named: str, directory: Path) -> Iterator[str]:
    config = json_or_empty(directory / "config.json")
    if "auto_map" in config:
        return
    tensors = model_headers([file for file in files_of_transformers(directory) if file.is_file()])
    for problem in weight_problems(tensors, config, "config.json"):
        yield f"{named}: {problem}"
    table = next((tensor.shape[0] for name, tensor in tensors.items() if name.endswith(_POSITIONS)), None)
    if table is None:
        return
    rows = table - (int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _PADDED_POSITIONS else 0)
    own = json_or_empty(directory / "tokenizer_config.json").get("model_max_length") or table
    window = _transformer_config(directory).get("max_seq_length") or min(
        own, config.get("max_position_embeddings", table)
    )
    if window > rows:
        yield (
            f"{named}: reads up to {int(window)} tokens of a text, and its weights have {rows} positions; lower "
            "max_seq_length in its sentence_bert_config.json"
        )


def _static_problems(named: str, directory: Path) -> Iterator[str]:
    """A table of which every tensor is read."""
    if not (file := directory / "model.safetensors").is_file():
        return
    names = set(tensor_headers(file))
    if not any(names <= known for known in _STATIC_TENSORS):
        yield f"{named}: {file.name} holds {', '.join(sorted(names))}, which is no StaticEmbedding"


def _chain(modules: list[dict[str, Any]], directory: Path) -> list[tuple[str, Path]]:
    """Type and folder of every module."""
    return [(str(module.get("type")), directory / str(module.get("path") or "")) for module in modules]


def _router_config(directory: Path) -> Mapping[str, Any]:
    return json_or_empty(directory / "router_config.json") or json_or_empty(directory / "config.json")


def _is_foreign(kind: str) -> bool:
    return not kind.startswith(_OWN_CODE)


def _name(kind: str) -> str:
    return kind.rpartition(".")[2]


def _transformer_config(directory: Path) -> Mapping[str, Any]:
    """sentence-transformers' settings of a Transformer, under any of the names that it looks for."""
    found = (json_or_empty(directory / name) for name in _TRANSFORMER_CONFIGS)
    return next((config for config in found if config), {})
