"""Pairs as a loss receives them, by their log-ratios."""

import torch
from torch import Tensor

from nemo_sspo.objective.pair_batch import PairBatch, PairTargets


def of_log_ratios(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets) -> PairBatch:
    """Reference log-probs of 0, one token per response, equal weights."""
    logps_B2 = torch.stack([d_chosen_B, d_rejected_B], dim=1)
    count = len(logps_B2)
    lengths_B2 = torch.ones(count, 2, dtype=torch.int64)
    return PairBatch(logps_B2, torch.zeros_like(logps_B2), targets, lengths_B2, torch.full((count,), 1 / count))
