"""Losses whose gradient for one response is known as soon as that response's own log-prob is.

Legend: B pairs, R responses of any pairs, in any order.

A loss f(d_w, targets) + g(d_l, targets) regresses each log-ratio on its own target: dL/dd_w does not ask what d_l is.
With targets and reference known before the forward pass, a response's gradient is then one number times the gradient
of its own log-prob, and that number is at hand while the response's logits still are.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nemo_sspo.objective.losses import PairTargets

SEPARABLE = frozenset({"sppo", "sppo_single", "sppo_hard"})
"""The losses of `LOSSES` that are such a sum."""


def slopes(
    loss: Callable[[Tensor, Tensor, PairTargets], Tensor], d_R: Tensor, is_chosen_R: Tensor, targets_R: PairTargets
) -> Tensor:
    """dL/dd of single responses, [R], by autograd of the loss itself; the other side's log-ratio is taken as 0.

    Args:
        loss: a separable loss; with any other the result is wrong wherever the other side is not 0.
        d_R: each response's log-ratio.
        is_chosen_R: whether it is its pair's chosen response.
        targets_R: the targets of its pair.
    """
    with torch.enable_grad():
        own_R = d_R.detach().requires_grad_()
        zero_R = torch.zeros_like(own_R)
        chosen_R, rejected_R = torch.where(is_chosen_R, own_R, zero_R), torch.where(is_chosen_R, zero_R, own_R)
        (slope_R,) = torch.autograd.grad(loss(chosen_R, rejected_R, targets_R).sum(), own_R)
    return slope_R
