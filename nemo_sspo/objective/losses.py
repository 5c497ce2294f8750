"""Preference losses on summed log-ratios, one value per pair (S-SPPO eq. 2.1 and 3.1; SPPO eq. 4.6; baselines).

Legend: B pairs. ``d_chosen_B`` is log pi_theta(y_w|x) - log pi_t(y_w|x), **summed** over the response's tokens (end of
turn included, prompt excluded); ``d_rejected_B`` alike. Each function returns the loss of every pair, [B]; the mean
over the global batch is the caller's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairTargets(NamedTuple):
    """Calibrated targets in [0, 1], each [B]: win rates of chosen and rejected, and P(chosen beats rejected)."""

    chosen_B: Tensor
    rejected_B: Tensor
    pair_B: Tensor


def sppo(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, eta: float) -> Tensor:
    """Regress each log-ratio on its own win rate: 1/2 [(d_w - eta(p_w - 1/2))^2 + (d_l - eta(p_l - 1/2))^2]."""
    chosen = d_chosen_B - eta * (targets.chosen_B - 0.5)
    rejected = d_rejected_B - eta * (targets.rejected_B - 0.5)
    return 0.5 * (chosen.square() + rejected.square())


def sppo_single(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, eta: float) -> Tensor:
    """SPPO with the pair's own probability for both sides, antisymmetric around 1/2."""
    step = eta * (targets.pair_B - 0.5)
    return 0.5 * ((d_chosen_B - step).square() + (d_rejected_B + step).square())


def sppo_hard(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, eta: float) -> Tensor:
    """TRL's ``sppo_hard``: targets 1 and 0, and no factor 1/2. Calibration has no say in it."""
    del targets
    return (d_chosen_B - 0.5 * eta).square() + (d_rejected_B + 0.5 * eta).square()


def dpo(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, beta: float) -> Tensor:
    """DPO (Rafailov et al., 2023, eq. 7): -log sigma(beta (d_w - d_l))."""
    del targets
    return -F.logsigmoid(beta * (d_chosen_B - d_rejected_B))


def ipo(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, beta: float) -> Tensor:
    """IPO (Azar et al., 2024, eq. 17) on summed log-ratios: (d_w - d_l - 1/(2 beta))^2."""
    del targets
    return (d_chosen_B - d_rejected_B - 0.5 / beta).square()


def kto_pair(d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets, *, beta: float) -> Tensor:
    """Paired KTO: each side is valued against the clamped log-ratio of the other, which carries no gradient.

    The reference point is the pair's own rather than a batch mean, so that a pair's loss does not depend on which
    pairs share its microbatch; TRL's formula on a batch of one pair has the same value.
    """
    del targets
    chosen_point = d_chosen_B.detach().clamp(min=0)
    rejected_point = d_rejected_B.detach().clamp(min=0)
    chosen = 1 - torch.sigmoid(beta * (d_chosen_B - rejected_point))
    rejected = 1 - torch.sigmoid(beta * (chosen_point - d_rejected_B))
    return 0.5 * (chosen + rejected)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sppo": sppo,
    "sppo_single": sppo_single,
    "sppo_hard": sppo_hard,
    "dpo": dpo,
    "ipo": ipo,
    "kto_pair": kto_pair,
}


def loss_at_start(loss: Callable[..., Tensor], targets: PairTargets) -> Tensor:
    """The closed form of step 1: pi_theta = pi_t makes every log-ratio 0. Returns [B].

    For ``sppo`` it is 1/2 eta^2 [(p_w - 1/2)^2 + (p_l - 1/2)^2]; every run asserts that its first loss equals it.
    """
    zero = torch.zeros_like(targets.chosen_B)
    return loss(zero, zero, targets)
