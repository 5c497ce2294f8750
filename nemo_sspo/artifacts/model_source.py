"""Where a model lies: a local directory, or a snapshot of a hub repository."""

import re
from pathlib import Path

from nemo_sspo.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def is_hub_id(path: str) -> bool:
    """Whether `path` is no local directory and has the form of a hub id (``owner/name`` or ``name``)."""
    return not Path(path).exists() and _HUB_ID.fullmatch(path) is not None


def local_model(path: str, setting: str) -> Path:
    """Directory of a model's files; a hub id is downloaded (or found in the cache) first.

    Args:
        path: a local directory or a hub id.
        setting: the configuration key it came from, for the message.

    Raises:
        UserError: there is no such directory, and no such repository can be reached.
    """
    if Path(path).is_dir():
        return Path(path)
    if not is_hub_id(path):
        raise UserError(f"{setting}={path}: no such directory, and not a hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path))
    except Exception as error:  # a hub client raises its own, its HTTP library's and OSError kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{setting}={path}: no such directory, and not found on the hub ({reason})") from None
