"""Which trainer bindings run in this environment."""

from __future__ import annotations

from collections.abc import Callable

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.nemo.versions import require_nemo
from nemo_sspo.megatron.versions import require_megatron_core

REQUIRED: dict[str, Callable[[], object]] = {"nemo": require_nemo, "core": require_megatron_core}
"""By a binding's name, what raises UserError where its packages are missing or of other versions."""


def available() -> list[str]:
    """Names of the bindings over which the tests of what every binding does are repeated; without one they skip."""
    return [name for name, require in REQUIRED.items() if _passes(require)]


def _passes(require: Callable[[], object]) -> bool:
    try:
        require()
    except UserError:
        return False
    return True
