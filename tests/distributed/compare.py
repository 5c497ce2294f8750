"""How far a parallel run is from the truth, and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import PreferencePair
from tests.distributed import world
from tests.distributed.architectures import LLAMA, Architecture
from tests.distributed.ranks import Case, Result
from tests.distributed.truth import Truth, truth

LOSS_TOLERANCE = 1e-6
"""Relative to the loss."""
GRADIENT_TOLERANCE = 1e-5
"""Largest difference in a parameter's gradient, relative to that gradient's largest element."""


@dataclass(frozen=True)
class Deviation:
    loss: float
    gradient: float
    parameter: str  # whose gradient it is

    @property
    def is_within_tolerance(self) -> bool:
        return self.loss <= LOSS_TOLERANCE and self.gradient <= GRADIENT_TOLERANCE

    def __str__(self) -> str:
        return f"loss {self.loss:.1e}, gradient {self.gradient:.1e} ({self.parameter})"


def deviation(result: Result, expected: Truth) -> Deviation:
    """Raises AssertionError when the run has not exactly the truth's parameters."""
    assert result.grads.keys() == expected.grads.keys()
    relative = {name: _relative(result.grads[name], grad) for name, grad in expected.grads.items()}
    worst = max(relative, key=relative.__getitem__)
    return Deviation(abs(result.metrics["loss"] / expected.loss - 1), relative[worst], worst)


def _relative(found: Tensor, expected: Tensor) -> float:
    difference = (found - expected).abs().max()
    # Zero must be met exactly; and what is not a number is infinitely far away.
    return 0.0 if difference == 0 else (difference / expected.abs().max()).nan_to_num(nan=float("inf")).item()


def truth_of(case: Case) -> Truth:
    """The truth for a case; computed once for all layouts and microbatch sizes that share it."""
    return _cached_truth(
        case.architecture,
        tuple(case.pairs),
        case.tied,
        case.pooling,
        case.preference_weight,
        case.repulsion_weight,
        case.at_reference,
    )


@cache
def _cached_truth(
    architecture: Architecture,
    pairs: tuple[PreferencePair, ...],
    tied: bool,
    pooling: str,
    preference_weight: float,
    repulsion_weight: float,
    at_reference: bool,
    dtype: torch.dtype = torch.float32,
) -> Truth:
    return truth(
        world.weights(tied=tied, architecture=architecture),
        pairs,
        architecture=architecture,
        pooling=pooling,
        preference_weight=preference_weight,
        repulsion_weight=repulsion_weight,
        at_reference=at_reference,
        dtype=dtype,
    )


def rounding_of_truth(architecture: Architecture = LLAMA) -> Deviation:
    """The truth in fp32 against itself in double precision: what rounding alone does."""
    pairs, weights = world.pairs(), world.weights(tied=False, architecture=architecture)
    single, double = (truth(weights, pairs, architecture=architecture, dtype=t) for t in (torch.float32, torch.float64))
    return deviation(Result({"loss": single.loss}, single.grads), double)
