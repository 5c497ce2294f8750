"""Legend: V values of one log-ratio, B pairs, N = V x V of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nemo_sspo.config.binding import bind
from nemo_sspo.config.losses import Loss as LossSettings
from nemo_sspo.objective.losses import LOSSES
from nemo_sspo.objective.pair_batch import PairBatch, PairTargets
from nemo_sspo.objective.separable import dloss_dlogp
from tests.pair_batches import of_log_ratios

VARIANTS = {member.model_fields["kind"].default: member for member in get_args(get_args(LossSettings)[0])}
SEPARABLE = sorted(name for name in LOSSES if VARIANTS[name].separable)
Loss = Callable[[PairBatch], Tensor]
LOG_RATIOS = st.floats(-20, 20, width=32)
TARGETS = st.floats(0, 1, width=32)
EVERYWHERE = torch.tensor([-200.0, -20, -15, -10, -7, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 7, 10, 15, 20, 200])
"""Log-ratios [V] that each side is tried at beside each of the other: a hinge has one gradient on all of either side,
where a few pairs could all lie."""


def with_defaults(name: str) -> Loss:
    return bind(VARIANTS[name](), LOSSES)


def both_gradients(loss: Loss, d_chosen_B: Tensor, d_rejected_B: Tensor, targets: PairTargets) -> tuple[Tensor, Tensor]:
    """(dL/dd_w, dL/dd_l) of every pair by autograd, [B] each."""
    d = d_chosen_B.clone().requires_grad_(), d_rejected_B.clone().requires_grad_()
    return torch.autograd.grad(loss(of_log_ratios(*d, targets)).sum(), d, materialize_grads=True)


def is_unmoved_by_the_other_side(loss: Loss) -> bool:
    """Whether every row of dL/dd_w and every column of dL/dd_l, both [V, V], has one value."""
    d_chosen_N, d_rejected_N = torch.cartesian_prod(EVERYWHERE, EVERYWHERE).T
    shape = len(EVERYWHERE), len(EVERYWHERE)
    for values in ((0.8, 0.3, 0.7), (0.5, 0.5, 0.5), (0.1, 1.0, 0.0)):
        targets = PairTargets(*(torch.full_like(d_chosen_N, value) for value in values))
        chosen_N, rejected_N = both_gradients(loss, d_chosen_N, d_rejected_N, targets)
        chosen_VV, rejected_VV = chosen_N.view(shape), rejected_N.view(shape)
        if (chosen_VV != chosen_VV[:, :1]).any() or (rejected_VV != rejected_VV[:1]).any():
            return False
    return True


def test_the_separable_losses_are_exactly_those_whose_sides_do_not_see_each_other() -> None:
    """Numerically, because kto_pair couples its sides behind a detach, where no second derivative shows it."""
    assert {name for name in LOSSES if is_unmoved_by_the_other_side(with_defaults(name))} == set(SEPARABLE)


@pytest.mark.parametrize("beta", [0.01, 0.05, 0.1, 1.0])
def test_sides_that_meet_only_at_a_hinge_are_coupled(beta: float) -> None:
    """As in SLiC-HF (Zhao et al., 2023), whose gradient is the same on all of either side of the hinge."""

    def hinge(pairs: PairBatch) -> Tensor:
        return torch.relu(1 - beta * (pairs.d_chosen_B - pairs.d_rejected_B))

    assert not is_unmoved_by_the_other_side(hinge)


@pytest.mark.parametrize("name", SEPARABLE)
@given(d=st.tuples(LOG_RATIOS, LOG_RATIOS), values=st.tuples(TARGETS, TARGETS, TARGETS))
def test_a_side_alone_has_the_gradient_of_the_whole_pair(
    name: str, d: tuple[float, float], values: tuple[float, float, float]
) -> None:
    targets = PairTargets(*(torch.tensor([value, value]) for value in values))
    both = of_log_ratios(torch.zeros(2), torch.zeros(2), targets)
    alone = dloss_dlogp(with_defaults(name), torch.tensor(d), torch.tensor([True, False]), both)
    pair = PairTargets(*(value[:1] for value in targets))
    whole = both_gradients(with_defaults(name), torch.tensor(d[:1]), torch.tensor(d[1:]), pair)
    assert alone.tolist() == [gradient.item() for gradient in whole]


def test_gradients_are_found_where_gradients_are_off() -> None:
    """As inside an autograd function."""
    targets = PairTargets(*(torch.tensor([0.75]) for _ in range(3)))
    with torch.no_grad():
        pair = replace(
            of_log_ratios(torch.zeros(1), torch.zeros(1), targets), ref_logps_B2=torch.tensor([[-5.0, -9.0]])
        )
        found = dloss_dlogp(partial(LOSSES["sppo"], eta=8.0), torch.tensor([-2.0]), torch.tensor([True]), pair)
    assert found.item() == 3.0 - 8.0 * 0.25


def test_a_side_alone_sees_its_pairs_reference_and_lengths() -> None:
    """A regression of each response's log-prob per token, whose other side is at its reference."""

    def per_token(pairs: PairBatch) -> Tensor:
        return ((pairs.logps_B2 - 2 * pairs.ref_logps_B2) / pairs.lengths_B2).square().sum(dim=1)

    pair = replace(
        of_log_ratios(*torch.zeros(2, 2), PairTargets(*torch.full((3, 2), 0.5))),
        ref_logps_B2=torch.tensor([[-5.0, -9.0], [-1.0, -2.0]]),
        lengths_B2=torch.tensor([[2, 4], [8, 10]]),
    )
    found = dloss_dlogp(per_token, torch.tensor([-6.0, -3.0]), torch.tensor([True, False]), pair)
    # 2 (-6 + 10) / 2^2 of the first pair's chosen response, 2 (-3 + 4) / 10^2 of the second's rejected one
    assert found.tolist() == pytest.approx([2.0, 0.02])


def losses_of(name: str, *values: float) -> list[float]:
    """At every combination of two log-ratios."""
    d_chosen_N, d_rejected_N = torch.cartesian_prod(EVERYWHERE, EVERYWHERE).T
    targets = PairTargets(*(torch.full_like(d_chosen_N, value) for value in values))
    return with_defaults(name)(of_log_ratios(d_chosen_N, d_rejected_N, targets)).tolist()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_variant_says_which_targets_its_loss_reads(name: str) -> None:
    """Found by moving one target at a time: the chosen response's win rate, the rejected one's, the pair's."""
    sure = losses_of(name, 0.9, 0.2, 0.8)
    moves = (0.6, 0.2, 0.8), (0.9, 0.4, 0.8), (0.9, 0.2, 0.55)
    read = tuple(losses_of(name, *targets) != sure for targets in moves)
    known = {(True, True, False): "win rates", (False, False, True): "pair", (False, False, False): "choice"}
    assert VARIANTS[name].reads == known[read]
