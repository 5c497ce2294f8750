from __future__ import annotations

from hypothesis import settings

# How long an example takes is the machine's business: on a busy one hypothesis would call it a failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
