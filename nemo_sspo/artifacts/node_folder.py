"""A folder of this node and this user alone, for files that are faster or safer on the node than in the run."""

import os
import tempfile
from pathlib import Path

from nemo_sspo.errors import UserError


def node_folder() -> Path:
    """``/tmp/nemo-sspo-<user id>``, or below TMPDIR; see `make_node_folder`."""
    return Path(tempfile.gettempdir()) / f"nemo-sspo-{os.getuid()}"


def make_node_folder() -> Path:
    """The folder, made where it is not there.

    Raises:
        UserError: another user made it and could place files there that would then be loaded.
    """
    folder = node_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise UserError(f"{folder}: belongs to another user; set TMPDIR to a directory of yours on this node")
    return folder
