"""The interface of a generation engine for the rollout stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

OnProgress = Callable[[int], None]
"""Called with the number of prompts whose responses are complete."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are drawn."""

    samples: int
    """K, responses per prompt."""
    temperature: float
    top_p: float
    max_tokens: int
    """Longest response."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    token_ids: list[int]
    """Its tokens; the last one is the end-of-turn token when ``finish_reason`` is ``stop``."""
    logprobs: list[float]
    """Log-prob of each token under the policy itself (before temperature and top-p), in nats."""
    finish_reason: str
    """``stop``: it ended by itself; ``length``: it was cut at the limit."""


class RolloutEngine(Protocol):
    """Samples from one policy.

    After `begin`, equal seed, prompts and sampling draw equal random numbers. On a CPU the completions are equal to the
    last bit; on a GPU they diverge where two tokens are nearly tied (docs/generation.md).
    """

    def begin(self, seed: int) -> None:
        """Draw from `seed` from now on, like a newly started engine."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_progress: OnProgress
    ) -> list[list[Completion]]:
        """K completions of every prompt (token ids, generation prompt included), in the order of `prompts`."""
        ...
