"""Where torch compiles extensions: locks that nobody holds any more, and folders whose files cannot be loaded."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.node_folder import make_node_folder, node_folder
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, judged
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.torch_extensions import ABANDONED_SECONDS, holder_of

_VARIABLE = "TORCH_EXTENSIONS_DIR"
_NAMED = 3


def extension_checks(experiment: Experiment) -> Iterator[Check]:
    """The node's folder is this user's and executable, and no lock in a cache of extensions is left over."""
    try:
        folder = make_node_folder()
    except UserError as error:
        yield Check("compiled extensions", "failed", "another user's folder", note=str(error))
        return
    loads = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    advice = "set TMPDIR to a folder whose file system is not mounted noexec: libraries are loaded from it"
    yield judged("compiled extensions", loads, "can be loaded" if loads else "noexec", advice=advice)
    stale = [lock for cache in caches(experiment) for lock in cache.glob("**/lock") if is_stale(lock)]
    more = f", and {len(stale) - _NAMED} more" if len(stale) > _NAMED else ""
    advice = f"torch waits for them for ever: rm {' '.join(map(str, stale[:_NAMED]))}{more}"
    yield judged("locks of extensions", not stale, f"{len(stale)} stale", "0", advice=advice)


def caches(experiment: Experiment) -> list[Path]:
    """The folders in which a stage's torch may compile: the node's, one that a variable names, and torch's own."""
    cluster = experiment.cluster
    named = (environment.variables.get(_VARIABLE) for environment in (cluster.train, cluster.rollout))
    given = [Path(folder) for folder in (*named, os.environ.get(_VARIABLE)) if folder]
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return list(dict.fromkeys((node_folder() / "torch_extensions", *given, home / "torch_extensions")))


def is_stale(lock: Path) -> bool:
    """Whether no process in sight holds a lock, and one that holds it elsewhere would be done."""
    try:
        age = time.time() - lock.stat().st_mtime
    except OSError:
        return False
    return age > ABANDONED_SECONDS and holder_of(lock) is None
