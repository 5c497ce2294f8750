"""Repulsion: bounds, closed forms, and that its gradient really pushes the two states apart."""

import math

import pytest
import torch

from nemo_sspo.objective.repulsion import REPULSIONS, repulsion_weight, unit

ARGUMENTS = {"hinge": {"margin": 0.2}, "kernel": {"temperature": 0.5}}
BOUNDS = {"euclidean": (-2, 0), "cosine": (-1, 1), "cosine_squared": (0, 1), "hinge": (0, 0.8), "kernel": (0, 1)}


def form(name):
    return lambda w, lo: REPULSIONS[name](w, lo, **ARGUMENTS.get(name, {}))


def repulsion(w, lo, name):
    """Of two states, each [B, H]."""
    return form(name)(unit(w), unit(lo))


def states(count=16, size=8):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, size, generator=g), torch.randn(count, size, generator=g)


# Two unit vectors 60 degrees apart: cosine 1/2, squared distance 1.
AT_60_DEGREES = {"euclidean": -0.5, "cosine": 0.5, "cosine_squared": 0.25, "hinge": 0.3, "kernel": math.exp(-2)}


@pytest.mark.parametrize("name", sorted(REPULSIONS))
def test_closed_form(name):
    w, lo = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.5, 1.5 * math.sqrt(3)]])
    assert repulsion(w, lo, name).item() == pytest.approx(AT_60_DEGREES[name], rel=1e-6)


@pytest.mark.parametrize("name", sorted(REPULSIONS))
def test_bounded_and_blind_to_scale(name):
    w, lo = states()
    value = repulsion(w, lo, name)
    low, high = BOUNDS[name]
    assert low - 1e-6 <= value.min() <= value.max() <= high + 1e-6
    torch.testing.assert_close(repulsion(w * 7, lo * 0.01, name), value)


@pytest.mark.parametrize("name", sorted(REPULSIONS))
def test_a_step_against_the_gradient_moves_the_states_apart(name):
    w, lo = torch.tensor([[1.0, 0.2, 0.0]]), torch.tensor([[1.0, 0.0, 0.3]])
    w.requires_grad_()
    repulsion(w, lo, name).sum().backward()
    assert w.grad.abs().max() > 1e-4
    before = (unit(w.detach()) * unit(lo)).sum()
    after = (unit(w.detach() - 0.05 * w.grad) * unit(lo)).sum()
    assert after < before


@pytest.mark.parametrize("name", ["euclidean", "cosine", "hinge", "cosine_squared", "kernel"])
def test_identical_states_feel_no_force(name):
    w = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    repulsion(w, w.detach().clone(), name).sum().backward()
    assert w.grad.abs().max() < 1e-6


def test_euclidean_and_cosine_differ_by_a_constant_and_share_their_gradient():
    w, lo = states()
    a, b = w.clone().requires_grad_(), w.clone().requires_grad_()
    euclidean, cosine = repulsion(a, lo, "euclidean"), repulsion(b, lo, "cosine")
    torch.testing.assert_close(euclidean + 1, cosine, atol=1e-6, rtol=1e-5)
    euclidean.sum().backward()
    cosine.sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_a_zero_state_has_a_finite_gradient():
    zero = torch.zeros(1, 4, requires_grad=True)
    repulsion(zero, torch.ones(1, 4), "euclidean").sum().backward()
    assert torch.isfinite(zero.grad).all()
    assert unit(zero).abs().max() == 0


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [2, 2, 2]), ("linear", [2, 1, 0]), ("cosine", [2, 1, 0])]
)
def test_schedules(schedule, expected):
    values = [repulsion_weight(step, 10, weight=2.0, schedule=schedule) for step in (0, 5, 10)]
    assert values == pytest.approx(expected)
    with pytest.raises(ValueError, match="unknown repulsion schedule"):
        repulsion_weight(0, 1, weight=1.0, schedule="sine")
