"""Which losses calibrated targets enter, told by trying."""

import torch

from nemo_sspo.objective.losses import LOSSES, PairTargets
from nemo_sspo.objective.target_blind import TARGET_BLIND
from tests.objective.test_separable import EVERYWHERE, with_defaults


def losses_of(name: str, *values: float) -> list[float]:
    """At every combination of two log-ratios."""
    d_chosen_N, d_rejected_N = torch.cartesian_prod(EVERYWHERE, EVERYWHERE).T
    targets = PairTargets(*(torch.full_like(d_chosen_N, value) for value in values))
    return with_defaults(name)(d_chosen_N, d_rejected_N, targets).tolist()


def test_the_blind_losses_are_exactly_those_that_no_target_changes() -> None:
    sure = 0.9, 0.2, 0.8
    moved = [(0.6, *sure[1:]), (sure[0], 0.4, sure[2]), (*sure[:2], 0.55)]
    assert {name for name in LOSSES if all(losses_of(name, *sure) == losses_of(name, *each) for each in moved)} == (
        TARGET_BLIND
    )
