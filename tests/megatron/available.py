"""Which trainer bindings run in this environment."""

from __future__ import annotations

from nemo_sspo.megatron.installed import REQUIRED, trainer_problems


def available() -> list[str]:
    """Names of the bindings over which the tests of what every binding does are repeated; without one they skip."""
    return [name for name in REQUIRED if not trainer_problems(name)]
