"""Files of published artifacts that `nemo-sspo clean` removed: the artifact stays, and says which are gone."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from nemo_sspo.artifacts.durable import fsync
from nemo_sspo.errors import UserError

REMOVED = "removed.json"


def removed_files(artifact: Path) -> tuple[str, ...]:
    """Paths below an artifact's directory, sorted; empty where nothing was removed.

    Raises:
        UserError: the list cannot be read.
    """
    try:
        names = json.loads((artifact / REMOVED).read_bytes())
    except FileNotFoundError:
        return ()
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{artifact / REMOVED}: not a list of files; make that step anew with `nemo-sspo redo`")
    return tuple(sorted(names))


def mark_removed(artifact: Path, files: Iterable[str]) -> None:
    """Add files to the list, durably."""
    names = sorted({*removed_files(artifact), *files})
    draft = artifact / f".{REMOVED}.tmp"
    draft.write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    fsync(draft)
    os.replace(draft, artifact / REMOVED)
    fsync(artifact)
