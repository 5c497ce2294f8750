from __future__ import annotations

from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.config.variants import Loss
from nemo_sspo.objective.losses import LOSSES, PairTargets
from nemo_sspo.objective.separable import SEPARABLE, slopes

VARIANTS = {member.model_fields["kind"].default: member for member in get_args(get_args(Loss)[0])}
ARGUMENTS = {name: VARIANTS[name]().model_dump(exclude={"kind", "scale"}) for name in LOSSES}
"""Every loss with the defaults of its settings."""
LOG_RATIOS = st.floats(-20, 20, width=32)
TARGETS = st.floats(0, 1, width=32)


def both_slopes(name: str, d_chosen: float, d_rejected: float, targets: PairTargets) -> tuple[float, float]:
    """(dL/dd_w, dL/dd_l) of one pair by autograd."""
    d = torch.tensor([d_chosen], requires_grad=True), torch.tensor([d_rejected], requires_grad=True)
    grads = torch.autograd.grad(LOSSES[name](*d, targets, **ARGUMENTS[name]).sum(), d)
    return grads[0].item(), grads[1].item()


def is_unmoved_by_the_other_side(name: str) -> bool:
    targets = PairTargets(*(torch.tensor([value]) for value in (0.8, 0.3, 0.7)))
    here = both_slopes(name, 1.0, -2.0, targets)
    chosen_alone, rejected_alone = both_slopes(name, 1.0, 3.0, targets)[0], both_slopes(name, 4.0, -2.0, targets)[1]
    return (chosen_alone, rejected_alone) == here


def test_the_separable_losses_are_exactly_those_whose_sides_do_not_see_each_other() -> None:
    """Numerically, because kto_pair couples its sides behind a detach, where no second derivative shows it."""
    assert {name for name in LOSSES if is_unmoved_by_the_other_side(name)} == SEPARABLE


@pytest.mark.parametrize("name", sorted(SEPARABLE))
@given(d=st.tuples(LOG_RATIOS, LOG_RATIOS), values=st.tuples(TARGETS, TARGETS, TARGETS))
def test_a_side_alone_has_the_gradient_of_the_whole_pair(
    name: str, d: tuple[float, float], values: tuple[float, float, float]
) -> None:
    targets = PairTargets(*(torch.tensor([value, value]) for value in values))
    alone = slopes(partial(LOSSES[name], **ARGUMENTS[name]), torch.tensor(d), torch.tensor([True, False]), targets)
    pair = PairTargets(*(value[:1] for value in targets))
    assert tuple(alone.tolist()) == both_slopes(name, *d, pair)


def test_slopes_are_found_where_gradients_are_off() -> None:
    """As inside an autograd function."""
    targets = PairTargets(*(torch.tensor([0.75]) for _ in range(3)))
    with torch.no_grad():
        found = slopes(partial(LOSSES["sppo"], eta=8.0), torch.tensor([3.0]), torch.tensor([True]), targets)
    assert found.item() == 3.0 - 8.0 * 0.25
