"""Which losses calibrated targets enter, told by trying."""

import torch

from nemo_sspo.objective.losses import LOSSES, PairTargets
from nemo_sspo.objective.target_blind import TARGET_BLIND
from tests.objective.test_separable import ARGUMENTS


def loss_of(name: str, *values: float) -> float:
    targets = PairTargets(*(torch.tensor([value]) for value in values))
    return LOSSES[name](torch.tensor([1.0]), torch.tensor([-2.0]), targets, **ARGUMENTS[name]).item()


def test_the_blind_losses_are_exactly_those_that_no_target_changes() -> None:
    sure = 0.9, 0.2, 0.8
    moved = [(0.6, *sure[1:]), (sure[0], 0.4, sure[2]), (*sure[:2], 0.55)]
    assert {name for name in LOSSES if all(loss_of(name, *sure) == loss_of(name, *each) for each in moved)} == (
        TARGET_BLIND
    )
