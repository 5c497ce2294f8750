"""Ends the build of the training image (Dockerfile) unless it holds what a run imports. Needs no GPU and no driver."""

from __future__ import annotations

import os
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from nemo_sspo.megatron.nemo.versions import require_nemo
from nemo_sspo.stages.runner.torch_extensions import skip_unused

MODULES = {"megatron-core": "megatron.core", "nemo-toolkit": "nemo"}


def require_own_copy(project: str, module: str) -> None:
    """Exit where another copy of the module comes first on the path: a checkout on PYTHONPATH, say."""
    installed = Path(str(distribution(project).locate_file(module.replace(".", "/"))), "__init__.py")
    spec = find_spec(module)
    found = spec.origin if spec else None
    if found != str(installed):
        raise SystemExit(f"{module} is imported from {found}, not from {installed}, where pip put {project}")


def import_tested_pair(extensions: Path) -> str:
    """Import megatron-core as a run will. Returns NeMo's version; exits where the import compiled something."""
    skip_unused(extensions)
    # Transformer Engine wants a driver, which a build has not; megatron-core imports without it.
    sys.modules["transformer_engine"] = None  # type: ignore[assignment]
    version = require_nemo()
    if built := [str(path) for path in extensions.iterdir() if path.is_dir()]:
        raise SystemExit(f"importing megatron.core compiled {', '.join(built)}: each container would do it again")
    return version


def main() -> None:
    for project, module in MODULES.items():
        require_own_copy(project, module)
    print(f"NeMo {import_tested_pair(Path(os.environ['TORCH_EXTENSIONS_DIR']))}")


if __name__ == "__main__":
    main()
