"""Ends the build of a training image (Dockerfile) unless it holds what a run imports. Needs no GPU and no driver.

python -m scripts.check_image nemo|core    by the trainer that the image is for
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from nemo_sspo.megatron.nemo.versions import require_nemo
from nemo_sspo.megatron.versions import require_megatron_core
from nemo_sspo.stages.runner.torch_extensions import skip_unused

MODULES = {"megatron-core": "megatron.core", "nemo-toolkit": "nemo"}


def require_own_copy(project: str, module: str) -> None:
    """Exit where another copy of the module comes first on the path: a checkout on PYTHONPATH, say."""
    installed = Path(str(distribution(project).locate_file(module.replace(".", "/"))), "__init__.py")
    spec = find_spec(module)
    found = spec.origin if spec else None
    if found != str(installed):
        raise SystemExit(f"{module} is imported from {found}, not from {installed}, where pip put {project}")


def import_tested(trainer: str, extensions: Path) -> str:
    """Import megatron-core as a run will. Returns the version of what trains; exits where that compiled something."""
    skip_unused(extensions)
    # Transformer Engine wants a driver, which a build has not; megatron-core imports without it.
    sys.modules["transformer_engine"] = None  # type: ignore[assignment]
    version = require_nemo() if trainer == "nemo" else require_megatron_core()
    if built := [str(path) for path in extensions.iterdir() if path.is_dir()]:
        raise SystemExit(f"importing megatron.core compiled {', '.join(built)}: each container would do it again")
    return version


def main(trainer: str) -> None:
    if trainer == "nemo":  # megatron-core by itself is the base's, and may be a checkout there
        for project, module in MODULES.items():
            require_own_copy(project, module)
    version = import_tested(trainer, Path(os.environ["TORCH_EXTENSIONS_DIR"]))
    import_module(f"nemo_sspo.megatron.{trainer}.binding")
    print(f"{trainer}: {version}")


if __name__ == "__main__":
    main(sys.argv[1])
