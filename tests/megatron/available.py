"""Which trainer bindings run in this environment."""

from __future__ import annotations

import os

from nemo_sspo.megatron.installed import REQUIRED, trainer_problems

ONLY = "NEMO_SSPO_TEST_TRAINER"
"""Variable that names one binding: where others run it too, an environment that has both leaves it to them."""


def available() -> list[str]:
    """Names of the bindings over which the tests of what every binding does are repeated; without one they skip."""
    only = os.environ.get(ONLY)
    return [name for name in REQUIRED if only in (None, "", name) and not trainer_problems(name)]
