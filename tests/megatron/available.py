"""Which trainer bindings run in this environment."""

from __future__ import annotations

from collections.abc import Callable

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.installed import REQUIRED


def available() -> list[str]:
    """Names of the bindings over which the tests of what every binding does are repeated; without one they skip."""
    return [name for name, require in REQUIRED.items() if _passes(require)]


def _passes(require: Callable[[], object]) -> bool:
    try:
        require()
    except UserError:
        return False
    return True
