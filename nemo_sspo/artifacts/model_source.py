"""Where a model lies: a local directory, or a snapshot of a hub repository."""

import re
from collections.abc import Sequence
from pathlib import Path

from nemo_sspo.errors import UserError

WEIGHTS = ("*.safetensors",)
OLD_WEIGHTS = (*WEIGHTS, "pytorch_model.bin")
"""For readers that take a pickle too, by a weights-only load."""
_SIDE_FILES = ("*.json", "*.jinja", "*.model", "*.py", "*.tiktoken", "*.txt")
_COPIES = ("original/*", "consolidated*", "onnx/*", "openvino/*")
"""The same weights once more, for other software: of a Llama 3 as large as all that is read here."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_hub_id(path: str) -> bool:
    """Whether `path` is no local directory and has the form of a hub id (``owner/name`` or ``name``)."""
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def local_model(path: str, setting: str, weights: Sequence[str] = WEIGHTS) -> Path:
    """Directory of a model's files; a hub id is downloaded (or found in the cache) first, without what nobody reads.

    Args:
        path: a local directory or a hub id.
        setting: the configuration key it came from, for the message.
        weights: patterns of the weight files that are read; none for a tokenizer or a configuration.

    Raises:
        UserError: there is no such directory, and no such repository can be reached.
    """
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        raise UserError(f"{setting}={path}: no such directory, and not a hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        wanted = [*_SIDE_FILES, *weights]
        return Path(snapshot_download(path, allow_patterns=wanted, ignore_patterns=list(_COPIES)))
    except Exception as error:  # a hub client raises its own, its HTTP library's and OSError kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{setting}={path}: no such directory, and not found on the hub ({reason})") from None
