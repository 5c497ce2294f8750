"""Which versions of megatron-core this package works with; `nemo/versions.py` has those that NeMo does."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

from packaging.version import InvalidVersion, Version

from nemo_sspo.errors import UserError

# A half-open range, and the versions whose tests run.
SUPPORTED = ("0.15.0", "0.20.0")
TESTED = ("0.15.3", "0.16.1", "0.17.1", "0.18.2", "0.19.2")


def megatron_core_version() -> str:
    """Of the package that is, or would be, imported. Raises UserError where there is none."""
    # The module's own number, not the distribution's: with `pip --target` several distributions may be on the path
    # and only one of them is imported. Its file tells it without an import, which takes torch.
    if (imported := sys.modules.get("megatron.core")) is not None:
        return str(imported.__version__)
    try:
        found = find_spec("megatron.core")
    except ImportError:  # nothing of Megatron
        found = None
    if found is None or found.origin is None:
        raise UserError(f"megatron-core is not installed in this environment; install megatron-core=={TESTED[0]}")
    return str(run_path(str(Path(found.origin).with_name("package_info.py")))["__version__"])


def require_version(name: str, found: str, supported: tuple[str, str], tested: tuple[str, ...]) -> None:
    """Raise UserError where the version that was found lies outside the range."""
    low, high = supported
    try:
        inside = Version(low) <= Version(found) < Version(high)
    except InvalidVersion:
        inside = False
    if not inside:
        raise UserError(
            f"{name} {found} is not supported: need >= {low}, < {high} (tested: {', '.join(tested)}); "
            f"install {name}=={tested[0]}"
        )


def require_megatron_core() -> str:
    """Version of megatron-core installed. Raises UserError for one that was never tested."""
    found = megatron_core_version()
    require_version("megatron-core", found, SUPPORTED, TESTED)
    return found
