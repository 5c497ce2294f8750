"""Where a model lies: a local directory, or a snapshot of a hub repository."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_sspo.errors import UserError

SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "tokenizer.model",
    "tokenizer.model.v*",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""A policy's files other than weights: configuration, generation settings, tokenizer, terms of use."""
MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.safetensors")
"""What loaders of any model may read, code left out."""
CODE = "*.py"
"""For models whose own code the user allows."""
_PICKLES = "pytorch_model*.bin"
"""Weights of repositories without safetensors, for loaders that take them."""
_OTHER_COPIES = ("original/*", "consolidated*", "onnx/*", "openvino/*")
"""The same weights once more, for other programs."""
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")
"""Variables of the hub's client, and the values that it takes for true."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_hub_id(path: str) -> bool:
    """Whether `path` is no local directory and has the form of a hub id (``owner/name`` or ``name``)."""
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def local_model(path: str, setting: str, files: Sequence[str] = MODEL_FILES, *, pickles: bool = False) -> Path:
    """Directory of a model's files; a hub id is downloaded (or found in the cache) first.

    Args:
        path: a local directory or a hub id.
        setting: the configuration key it came from, for the message.
        files: patterns of the names of what is downloaded.
        pickles: take PyTorch's own weight files where a repository has no safetensors.

    Raises:
        UserError: there is no such directory, and no such repository can be reached.
    """
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        raise UserError(f"{setting}={path}: no such directory, and not a hub id (owner/name)")
    if problem := offline_problem(path, setting, os.environ):
        raise UserError(problem)
    try:
        directory = _download(path, files)
        if pickles and not any(directory.glob("*.safetensors")):
            directory = _download(path, [*files, _PICKLES])
        return directory
    except Exception as error:  # a hub client raises its own, its HTTP library's and OSError kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{setting}={path}: no such directory, and not found on the hub ({reason})") from None


def offline_problem(path: str, setting: str, variables: Mapping[str, str]) -> str | None:
    """Why a process with these environment variables has no way to a hub id's files; None where it has one."""
    name = offline_variable(variables)
    if name is None or _is_cached(path, hub_cache(variables)):
        return None
    return (
        f"{setting}={path}: no such directory, and the hub is not asked ({name}={variables[name]}): its cache "
        f"{hub_cache(variables)} has no {path}; correct the path, or download the model first"
    )


def offline_variable(variables: Mapping[str, str]) -> str | None:
    """The variable that keeps the hub from being asked; None where it is."""
    return next((name for name in _OFFLINE if variables.get(name, "").upper() in _TRUE), None)


def hub_cache(variables: Mapping[str, str]) -> Path:
    """Where the hub's client keeps what it downloads, in a process with these environment variables."""
    if given := variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE"):
        return Path(given)
    home = variables.get("HF_HOME")
    return Path(home or Path(variables.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "huggingface") / "hub"


def _is_cached(repository: str, cache: Path) -> bool:
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        return (folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip()).is_dir()
    except (OSError, ValueError):
        return False


def _download(repository: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=list(files), ignore_patterns=list(_OTHER_COPIES)))
