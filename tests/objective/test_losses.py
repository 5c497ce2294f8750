"""Losses against values by hand, their gradients in closed form, and TRL's published formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from nemo_sspo.objective.losses import (
    LOSSES,
    PairTargets,
    dpo,
    ipo,
    kto_pair,
    loss_at_start,
    sppo,
    sppo_hard,
    sppo_single,
)

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
    value = LOSSES[name](d(D_W), d(D_L), TARGETS, **ARGUMENTS[name])
    assert value.item() == pytest.approx(GOLDEN[name], rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_is_that_of_finite_differences(name):
    d_w, d_l = d(D_W, grad=True), d(D_L, grad=True)
    # kto_pair's reference points carry no gradient, so it is differentiated where they are constant (both clamped).
    if name == "kto_pair":
        d_w, d_l = d(-0.2, grad=True), d(-0.3, grad=True)
    assert torch.autograd.gradcheck(lambda a, b: LOSSES[name](a, b, TARGETS, **ARGUMENTS[name]), (d_w, d_l))


def test_sppo_gradient_is_the_residual():
    d_w, d_l = d(D_W, grad=True), d(D_L, grad=True)
    sppo(d_w, d_l, TARGETS, eta=10.0).backward()
    assert d_w.grad.item() == pytest.approx(D_W - 10 * 0.3)
    assert d_l.grad.item() == pytest.approx(D_L - 10 * -0.15)


def test_sppo_is_zero_exactly_at_its_targets():
    optimum = sppo(10 * (TARGETS.chosen_B - 0.5), 10 * (TARGETS.rejected_B - 0.5), TARGETS, eta=10.0)
    assert optimum.item() == 0.0


def test_kto_reference_points_carry_no_gradient():
    d_w, d_l = d(0.5, grad=True), d(0.4, grad=True)
    kto_pair(d_w, d_l, TARGETS, beta=0.1).backward()
    p = torch.sigmoid(torch.tensor(0.1 * (0.5 - 0.4), dtype=torch.float64))
    assert d_w.grad.item() == pytest.approx(-0.5 * 0.1 * (p * (1 - p)).item())
    assert d_l.grad.item() == pytest.approx(0.5 * 0.1 * (p * (1 - p)).item())


def test_published_formulas_of_trl():
    """DPOTrainer's sigmoid, ipo (on sums), sppo_hard and kto_pair branches, rewritten from its documentation."""
    g = torch.Generator().manual_seed(0)
    d_w, d_l = torch.randn(2, 64, generator=g, dtype=torch.float64) * 3
    targets = PairTargets(*torch.rand(3, 64, generator=g, dtype=torch.float64))
    beta = 0.2
    logits = d_w - d_l
    torch.testing.assert_close(dpo(d_w, d_l, targets, beta=beta), -F.logsigmoid(beta * logits))
    torch.testing.assert_close(ipo(d_w, d_l, targets, beta=beta), (logits - 1 / (2 * beta)) ** 2)
    hard = (d_w - 0.5 / beta) ** 2 + (d_l + 0.5 / beta) ** 2
    torch.testing.assert_close(sppo_hard(d_w, d_l, targets, eta=1 / beta), hard)
    losses = [
        torch.stack([1 - F.sigmoid(beta * (w - lo.clamp(min=0))), 1 - F.sigmoid(beta * (w.clamp(min=0) - lo))]).mean()
        for w, lo in zip(d_w, d_l, strict=True)
    ]
    torch.testing.assert_close(kto_pair(d_w, d_l, targets, beta=beta), torch.stack(losses))


def test_hard_targets_make_sppo_half_of_trls_and_equal_single():
    sure = PairTargets(d(1.0), d(0.0), d(1.0))
    assert (2 * sppo(d(D_W), d(D_L), sure, eta=10.0)).item() == pytest.approx(GOLDEN["sppo_hard"])
    assert sppo_single(d(D_W), d(D_L), sure, eta=10.0).item() == sppo(d(D_W), d(D_L), sure, eta=10.0).item()


def test_closed_form_of_the_first_step():
    # d = 0: 1/2 * 10^2 * (0.3^2 + 0.15^2)
    start = loss_at_start(lambda w, lo, t: sppo(w, lo, t, eta=10.0), TARGETS)
    assert start.item() == pytest.approx(0.5 * 100 * (0.09 + 0.0225))
