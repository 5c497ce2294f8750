"""The bindings, the small policy and its pairs of `tests/megatron`, for the stages that train it."""

from tests.megatron.conftest import binding, imported, pairs, small_llama, supervised, trainer

__all__ = ["binding", "imported", "pairs", "small_llama", "supervised", "trainer"]
