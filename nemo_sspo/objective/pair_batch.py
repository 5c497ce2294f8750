"""What a preference loss receives: the pairs of one microbatch.

Legend: B pairs; the last dimension of a ``_B2`` tensor is (chosen, rejected).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class PairTargets(NamedTuple):
    """Calibrated targets in [0, 1], each [B]: win rates of chosen and rejected, and P(chosen beats rejected)."""

    chosen_B: Tensor
    rejected_B: Tensor
    pair_B: Tensor


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one microbatch.

    The packing decides which pairs share a microbatch, so it depends on the parallel layout. A loss whose value for a
    pair reads that pair alone is the same in every layout; a loss that couples pairs is not.
    """

    logps_B2: Tensor
    """log pi_theta(y|x), **summed** over the response's tokens (end of turn included, prompt excluded)."""
    ref_logps_B2: Tensor
    """log pi_t(y|x), summed alike; no gradient."""
    targets: PairTargets
    lengths_B2: Tensor
    """Tokens of each response that the sums run over, int64, at least 1."""
    weight_B: Tensor
    """Weight of each pair in the loss of the step: 1 / pairs of the global batch, or 0 if it only fills the microbatch
    up. The caller applies it; only a loss that couples pairs needs it."""

    @property
    def d_chosen_B(self) -> Tensor:
        """Log-ratio of the chosen response, log pi_theta(y_w|x) - log pi_t(y_w|x)."""
        return self.logps_B2[:, 0] - self.ref_logps_B2[:, 0]

    @property
    def d_rejected_B(self) -> Tensor:
        """Log-ratio of the rejected response."""
        return self.logps_B2[:, 1] - self.ref_logps_B2[:, 1]

    def rows(self, indices: Tensor) -> PairBatch:
        """The pairs of these indices [any], in this order; one pair may come several times."""
        targets = PairTargets(*(target_B[indices] for target_B in self.targets))
        tensors = (self.lengths_B2[indices], self.weight_B[indices])
        return PairBatch(self.logps_B2[indices], self.ref_logps_B2[indices], targets, *tensors)
