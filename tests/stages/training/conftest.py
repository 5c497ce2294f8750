"""The small policy and its pairs of `tests/megatron`, for the stages that train it."""

from tests.megatron.conftest import imported, pairs, policy, supervised

__all__ = ["imported", "pairs", "policy", "supervised"]
