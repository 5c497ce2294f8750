"""How far figures may lie apart, by the precision that is trained in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Largest differences of the checks of `doctor --run`."""

    logps: float
    """Of a response's log-prob between vLLM and Megatron, in nats."""
    ranks: float
    """Relative, of losses and gradient norms of the first two steps on several ranks from those on one."""
    resumed: float
    """Relative, of losses and gradient norms of a resumed training from those of one that was not killed."""


BOUNDS = {
    "fp32": Bounds(logps=1e-3, ranks=1e-4, resumed=1e-4),
    "bf16": Bounds(logps=0.5, ranks=5e-2, resumed=5e-2),
    "fp8": Bounds(logps=2.0, ranks=0.5, resumed=0.5),
}
PREFERENCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference of a win probability from the host's, by the precision of the oracle's backbone."""
