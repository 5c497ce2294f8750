"""Preference losses on summed log-ratios, one value per pair (S-SPPO eq. 2.1 and 3.1; SPPO eq. 4.6; baselines).

Legend: B pairs, d_w and d_l the log-ratios of a pair's chosen and rejected response. Each function takes a `PairBatch`
and returns the loss of every pair, [B]; the caller takes the mean over the global batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_sspo.objective.pair_batch import PairBatch


def sppo(pairs: PairBatch, *, eta: float) -> Tensor:
    """Regress each log-ratio on its own win rate: 1/2 [(d_w - eta(p_w - 1/2))^2 + (d_l - eta(p_l - 1/2))^2]."""
    chosen = pairs.d_chosen_B - eta * (pairs.targets.chosen_B - 0.5)
    rejected = pairs.d_rejected_B - eta * (pairs.targets.rejected_B - 0.5)
    return 0.5 * (chosen.square() + rejected.square())


def sppo_single(pairs: PairBatch, *, eta: float) -> Tensor:
    """SPPO with the pair's own probability for both sides, antisymmetric around 1/2."""
    step = eta * (pairs.targets.pair_B - 0.5)
    return 0.5 * ((pairs.d_chosen_B - step).square() + (pairs.d_rejected_B + step).square())


def sppo_hard(pairs: PairBatch, *, eta: float) -> Tensor:
    """TRL's ``sppo_hard``: targets 1 and 0, and no factor 1/2. Calibration has no say in it."""
    return (pairs.d_chosen_B - 0.5 * eta).square() + (pairs.d_rejected_B + 0.5 * eta).square()


def dpo(pairs: PairBatch, *, beta: float) -> Tensor:
    """DPO (Rafailov et al., 2023, eq. 7): -log sigma(beta (d_w - d_l))."""
    return -F.logsigmoid(beta * (pairs.d_chosen_B - pairs.d_rejected_B))


def ipo(pairs: PairBatch, *, beta: float) -> Tensor:
    """IPO (Azar et al., 2024, eq. 17) on summed log-ratios: (d_w - d_l - 1/(2 beta))^2."""
    return (pairs.d_chosen_B - pairs.d_rejected_B - 0.5 / beta).square()


def kto_pair(pairs: PairBatch, *, beta: float) -> Tensor:
    """Paired KTO: each side is valued against the clamped log-ratio of the other, which carries no gradient.

    The reference point is the pair's own rather than a batch mean, so that a pair's loss does not depend on which
    pairs share its microbatch; TRL's formula on a batch of one pair has the same value.
    """
    chosen_point = pairs.d_chosen_B.detach().clamp(min=0)
    rejected_point = pairs.d_rejected_B.detach().clamp(min=0)
    chosen = 1 - torch.sigmoid(beta * (pairs.d_chosen_B - rejected_point))
    rejected = 1 - torch.sigmoid(beta * (chosen_point - pairs.d_rejected_B))
    return 0.5 * (chosen + rejected)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sppo": sppo,
    "sppo_single": sppo_single,
    "sppo_hard": sppo_hard,
    "dpo": dpo,
    "ipo": ipo,
    "kto_pair": kto_pair,
}


def couples_pairs(loss: Callable[[PairBatch], Tensor], pairs: PairBatch) -> bool:
    """Whether the loss of a pair depends on the other pairs of the batch: then it depends on the packing too."""
    alone = [loss(pairs.rows(index)) for index in torch.arange(len(pairs.weight_B)).split(1)]
    return not torch.allclose(loss(pairs), torch.cat(alone))
