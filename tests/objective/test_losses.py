"""Losses against values by hand, their gradients in closed form, and TRL's published formulas."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from nemo_sspo.config.binding import bind
from nemo_sspo.config.losses import CustomLoss
from nemo_sspo.errors import UserError
from nemo_sspo.objective.losses import (
    LOSSES,
    couples_pairs,
    dpo,
    ipo,
    kto_pair,
    sppo,
    sppo_hard,
    sppo_single,
)
from nemo_sspo.objective.pair_batch import PairBatch, PairTargets
from tests.pair_batches import of_log_ratios

D_W, D_L = 0.7, -0.3
TARGETS = PairTargets(*(torch.tensor([value], dtype=torch.float64) for value in (0.8, 0.35, 0.9)))
ARGUMENTS = {
    "sppo": {"eta": 10.0},
    "sppo_single": {"eta": 10.0},
    "sppo_hard": {"eta": 10.0},
    "dpo": {"beta": 0.1},
    "ipo": {"beta": 0.1},
    "kto_pair": {"beta": 0.1},
}


def d(value, *, grad=False):
    return torch.tensor([value], dtype=torch.float64, requires_grad=grad)


GOLDEN = {
    # 1/2 [(0.7 - 10*0.3)^2 + (-0.3 - 10*-0.15)^2] = 1/2 [5.29 + 1.44]
    "sppo": 3.365,
    # 1/2 [(0.7 - 10*0.4)^2 + (-0.3 + 10*0.4)^2] = 1/2 [10.89 + 13.69]
    "sppo_single": 12.29,
    # (0.7 - 5)^2 + (-0.3 + 5)^2 = 18.49 + 22.09
    "sppo_hard": 40.58,
    # -ln sigma(0.1 * 1.0)
    "dpo": math.log1p(math.exp(-0.1)),
    # (1.0 - 1/0.2)^2
    "ipo": 16.0,
    # 1/2 [1 - sigma(0.1 (0.7 - 0)) + 1 - sigma(0.1 (0.7 + 0.3))]
    "kto_pair": 0.5 * (1 / (1 + math.exp(0.07)) + 1 / (1 + math.exp(0.1))),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_golden_value(name):
    value = LOSSES[name](of_log_ratios(d(D_W), d(D_L), TARGETS), **ARGUMENTS[name])
    assert value.item() == pytest.approx(GOLDEN[name], rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_is_that_of_finite_differences(name):
    d_w, d_l = d(D_W, grad=True), d(D_L, grad=True)
    # kto_pair's reference points carry no gradient, so it is differentiated where they are constant (both clamped).
    if name == "kto_pair":
        d_w, d_l = d(-0.2, grad=True), d(-0.3, grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: LOSSES[name](of_log_ratios(a, b, TARGETS), **ARGUMENTS[name]), (d_w, d_l)
    )


def test_sppo_gradient_is_the_residual():
    d_w, d_l = d(D_W, grad=True), d(D_L, grad=True)
    sppo(of_log_ratios(d_w, d_l, TARGETS), eta=10.0).backward()
    assert d_w.grad.item() == pytest.approx(D_W - 10 * 0.3)
    assert d_l.grad.item() == pytest.approx(D_L - 10 * -0.15)


def test_sppo_is_zero_exactly_at_its_targets():
    optimum = sppo(of_log_ratios(10 * (TARGETS.chosen_B - 0.5), 10 * (TARGETS.rejected_B - 0.5), TARGETS), eta=10.0)
    assert optimum.item() == 0.0


def test_kto_reference_points_carry_no_gradient():
    d_w, d_l = d(0.5, grad=True), d(0.4, grad=True)
    kto_pair(of_log_ratios(d_w, d_l, TARGETS), beta=0.1).backward()
    p = torch.sigmoid(torch.tensor(0.1 * (0.5 - 0.4), dtype=torch.float64))
    assert d_w.grad.item() == pytest.approx(-0.5 * 0.1 * (p * (1 - p)).item())
    assert d_l.grad.item() == pytest.approx(0.5 * 0.1 * (p * (1 - p)).item())


def test_published_formulas_of_trl():
    """DPOTrainer's sigmoid, ipo (on sums), sppo_hard and kto_pair branches, rewritten from its documentation."""
    g = torch.Generator().manual_seed(0)
    d_w, d_l = torch.randn(2, 64, generator=g, dtype=torch.float64) * 3
    pairs = of_log_ratios(d_w, d_l, PairTargets(*torch.rand(3, 64, generator=g, dtype=torch.float64)))
    beta = 0.2
    logits = d_w - d_l
    torch.testing.assert_close(dpo(pairs, beta=beta), -F.logsigmoid(beta * logits))
    torch.testing.assert_close(ipo(pairs, beta=beta), (logits - 1 / (2 * beta)) ** 2)
    hard = (d_w - 0.5 / beta) ** 2 + (d_l + 0.5 / beta) ** 2
    torch.testing.assert_close(sppo_hard(pairs, eta=1 / beta), hard)
    losses = [
        torch.stack([1 - F.sigmoid(beta * (w - lo.clamp(min=0))), 1 - F.sigmoid(beta * (w.clamp(min=0) - lo))]).mean()
        for w, lo in zip(d_w, d_l, strict=True)
    ]
    torch.testing.assert_close(kto_pair(pairs, beta=beta), torch.stack(losses))


def test_hard_targets_make_sppo_half_of_trls_and_equal_single():
    sure = of_log_ratios(d(D_W), d(D_L), PairTargets(d(1.0), d(0.0), d(1.0)))
    assert (2 * sppo(sure, eta=10.0)).item() == pytest.approx(GOLDEN["sppo_hard"])
    assert sppo_single(sure, eta=10.0).item() == sppo(sure, eta=10.0).item()


def test_closed_form_of_the_first_step():
    # d = 0: 1/2 * 10^2 * (0.3^2 + 0.15^2)
    start = sppo(of_log_ratios(d(0.0), d(0.0), TARGETS), eta=10.0)
    assert start.item() == pytest.approx(0.5 * 100 * (0.09 + 0.0225))


def simpo(pairs: PairBatch, *, beta: float, margin: float) -> torch.Tensor:
    """SimPO (Meng et al., 2024, eq. 6): no reference, log-probs per token."""
    chosen_B, rejected_B = (pairs.logps_B2 / pairs.lengths_B2).unbind(dim=1)
    return -F.logsigmoid(beta * (chosen_B - rejected_B) - margin)


def dpo_of_mean_log_ratio(d_chosen_B, d_rejected_B, targets, *, beta):
    """Of the earlier signature; it couples the pairs of a microbatch."""
    del targets
    return -F.logsigmoid(beta * (d_chosen_B - d_rejected_B.mean()))


PAIRS = PairBatch(
    logps_B2=torch.tensor([[-12.0, -8.0], [-3.0, -20.0]]),
    ref_logps_B2=torch.tensor([[-13.0, -9.5], [-3.5, -18.0]]),
    targets=PairTargets(*torch.tensor([[0.8, 0.6], [0.35, 0.4], [0.9, 0.5]])),
    lengths_B2=torch.tensor([[6, 2], [3, 10]]),
    weight_B=torch.tensor([0.5, 0.5]),
)


def test_a_custom_loss_reads_lengths_and_no_reference():
    loss = bind(CustomLoss(function=f"{__name__}:simpo", arguments={"beta": 2.0, "margin": 0.5}), LOSSES)
    # 2 (-12/6 + 8/2) - 0.5 = 3.5 and 2 (-3/3 + 20/10) - 0.5 = 1.5
    expected = [math.log1p(math.exp(-3.5)), math.log1p(math.exp(-1.5))]
    assert loss(PAIRS).tolist() == pytest.approx(expected)
    assert not couples_pairs(loss, PAIRS)


def test_a_custom_loss_of_the_earlier_signature_gets_the_log_ratios():
    loss = bind(CustomLoss(function=f"{__name__}:dpo_of_mean_log_ratio", arguments={"beta": 0.2}), LOSSES)
    # d_w = 1, 0.5 against the mean of d_l = 1.5, -2
    expected = [math.log1p(math.exp(-0.2 * (d_w + 0.25))) for d_w in (1.0, 0.5)]
    assert loss(PAIRS).tolist() == pytest.approx(expected)
    assert couples_pairs(loss, PAIRS)


def test_a_custom_loss_of_neither_signature_is_refused_with_the_new_call():
    with pytest.raises(UserError, match=r"cannot be called as d\(pairs, beta=...\)"):
        bind(CustomLoss(function=f"{__name__}:d", arguments={"beta": 0.2}), LOSSES)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_loss_of_ours_couples_pairs(name):
    assert not couples_pairs(partial(LOSSES[name], **ARGUMENTS[name]), PAIRS)
