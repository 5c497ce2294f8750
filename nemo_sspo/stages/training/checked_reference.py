"""Reference log-probs at the cost of a sample: the rollout engine's, if Megatron confirms them on a sample.

The engine that sampled a response has already computed log pi_t of each of its tokens, and pi_t is the reference. But
other kernels, another precision or quantized weights round differently, and a wrong build would differ by more. So
Megatron computes the log-probs of a few pairs, and of all pairs if one of the few differs too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.jobs import ReferenceJob

CHECKED_BEFORE_TRAINING = 64
"""Pairs whose stored reference is computed again before a training's first step, if there are as many."""
_FP32_TOLERANCE = 1e-3, 1e-5
"""Nats, and nats per nat, that other row lengths may change a response's log-prob by in fp32."""

Source = Literal["rollout", "recompute"]
Compute = Callable[[ReferenceJob], Tensor]
"""`Binding.reference_logps`."""

LEAST_CHECKED = 8
"""Pairs that are checked of a small table, if it has as many."""


@dataclass(frozen=True)
class RolloutLogps:
    """What the rollout engine found, and how it is checked."""

    logps_P2: Tensor
    """Sums over each pair's responses (chosen, rejected), float64; not a number where the engine gave none."""
    rows: tuple[int, ...]
    """Pairs that Megatron computes too."""
    tolerance: float
    """Largest difference of a response's log-prob, in nats, with which the engine's are taken."""


@dataclass(frozen=True)
class ReferenceLogps:
    """The reference of every pair and where it is from; equal on all ranks."""

    logps_P2: Tensor
    source: Source
    checked: int = 0
    """Pairs that both have computed."""
    largest_difference: float | None = None
    """Of a response's log-prob over those pairs, in nats."""
    mean_difference: float | None = None
    """Rollout minus Megatron: what is left when rounding averages out."""


def sampled_rows(pairs: int, share: float, seed: int, least: int = LEAST_CHECKED) -> tuple[int, ...]:
    """`share` of the pairs, at least `least` of them, in the table's order."""
    count = min(pairs, max(least, math.ceil(share * pairs)))
    return tuple(sorted(np.random.default_rng(seed).choice(pairs, count, replace=False).tolist()))


def refuse_other_reference(job: ReferenceJob, seed: int, compute: Compute) -> None:
    """Raise a UserError when the log-probs stored with a seeded sample of the pairs are not the policy's. Collective.

    Args:
        job: with the policy that training starts from, which must be the reference.
        seed: which pairs are computed again: `train.reference_check_share` of them, at least `CHECKED_BEFORE_TRAINING`.
    """
    pairs = job.pairs
    rows = sampled_rows(len(pairs), job.train.reference_check_share, seed, CHECKED_BEFORE_TRAINING)
    stored_S2 = torch.tensor([[pairs[row].ref_chosen, pairs[row].ref_rejected] for row in rows])
    found_S2 = compute(replace(job, pairs=pairs.subset(rows)))
    absolute, relative = _FP32_TOLERANCE if job.precision.kind == "fp32" else (job.train.reference_tolerance, 0.0)
    off_S2 = (stored_S2 - found_S2).abs()
    wrong = (off_S2 > absolute + relative * found_S2.abs()).any(dim=1).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0]
        raise UserError(
            f"pair {pairs.pair_ids[rows[row]]}: its reference log-prob is {float(off_S2[row].max()):.3g} nats off the "
            f"policy's that training starts from ({len(wrong)} of {len(rows)} pairs that were computed again); "
            "`nemo-sspo redo <run> --from <iter_N.reference_logps>` makes them anew"
        )


def reference_logps(job: ReferenceJob, rollout: RolloutLogps | None, compute: Compute) -> ReferenceLogps:
    """The rollout's log-probs if they pass the check, else Megatron's of all pairs. Every rank calls it.

    Missing log-probs (of responses made elsewhere) do not match; `rollout` is None when Megatron's are wanted.
    """
    if rollout is None or bool(rollout.logps_P2.isnan().any()):
        return ReferenceLogps(compute(job), "recompute")
    sample_S2 = compute(replace(job, pairs=job.pairs.subset(rollout.rows)))
    # Equal on all ranks, because the sample's log-probs are.
    difference_S2 = rollout.logps_P2[list(rollout.rows)] - sample_S2.double()
    agrees = float(difference_S2.abs().max()) <= rollout.tolerance
    return ReferenceLogps(
        rollout.logps_P2.float() if agrees else compute(job),
        "rollout" if agrees else "recompute",
        len(rollout.rows),
        float(difference_S2.abs().max()),
        float(difference_S2.mean()),
    )
