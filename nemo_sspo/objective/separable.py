"""Losses whose gradient for one response is known as soon as that response's own log-prob is.

Legend: B pairs, R responses of any pairs, in any order.

A loss f(d_w, targets) + g(d_l, targets) regresses each log-ratio on its own target: dL/dd_w does not depend on d_l.
Targets and reference are known before the forward pass, so a response's gradient is one number times the gradient of
its own log-prob, and that number is known while the response's logits still exist.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nemo_sspo.objective.pair_batch import PairBatch

SEPARABLE = frozenset({"sppo", "sppo_single", "sppo_hard"})
"""The losses of `LOSSES` that are such a sum."""


def dloss_dlogp(loss: Callable[[PairBatch], Tensor], logp_R: Tensor, is_chosen_R: Tensor, pairs_R: PairBatch) -> Tensor:
    """Gradient of the loss for single responses' log-probs, [R], by autograd of the loss itself.

    The other response of the pair takes its reference's log-prob, so that its log-ratio is 0.

    Args:
        loss: a separable loss; with any other the result is wrong wherever the other log-ratio is not 0.
        logp_R: each response's log-prob.
        is_chosen_R: whether it is its pair's chosen response.
        pairs_R: the pair of each response; its log-probs are not read.
    """
    ref_chosen_R, ref_rejected_R = pairs_R.ref_logps_B2.unbind(dim=1)
    with torch.enable_grad():
        own_R = logp_R.detach().requires_grad_()
        logps_R2 = torch.stack(
            [torch.where(is_chosen_R, own_R, ref_chosen_R), torch.where(is_chosen_R, ref_rejected_R, own_R)], dim=1
        )
        (gradient_R,) = torch.autograd.grad(loss(replace(pairs_R, logps_B2=logps_R2)).sum(), own_R)
    return gradient_R
