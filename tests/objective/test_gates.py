"""Every gate is a calibration: it fades a preference with similarity and never reverses or strengthens it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.objective.gates import GATE_WEIGHTS, calibrate, kernel, linear, power, threshold

SHAPE_ARGUMENTS = {
    "none": {},
    "linear": {},
    "power": {"exponent": 2.5},
    "sigmoid": {"sharpness": 10.0},
    "threshold": {"centre": 0.8, "sharpness": 50.0},
    "kernel": {"bandwidth": 0.5},
}
FADING = sorted(set(GATE_WEIGHTS) - {"none"})
unit_interval = st.floats(0, 1)


def weight(kind, similarity):
    return GATE_WEIGHTS[kind](np.asarray(similarity, dtype=np.float64), **SHAPE_ARGUMENTS[kind])


def test_every_gate_is_covered_here():
    assert set(SHAPE_ARGUMENTS) == set(GATE_WEIGHTS)


@pytest.mark.parametrize("kind", FADING)
def test_ends_are_exact(kind):
    assert weight(kind, 0.0) == pytest.approx(1.0, abs=1e-12)
    assert weight(kind, 1.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", FADING)
def test_weight_falls_with_similarity(kind):
    values = weight(kind, np.linspace(0, 1, 101))
    assert np.all(np.diff(values) <= 1e-12)
    assert values[0] > values[50] > values[-1] or kind == "threshold"


@pytest.mark.parametrize("kind", sorted(GATE_WEIGHTS))
@given(p=unit_interval, similarity=unit_interval)
def test_a_preference_is_never_reversed_nor_strengthened(kind, p, similarity):
    target = calibrate(np.float64(p), weight(kind, similarity))
    assert 0.0 <= target <= 1.0
    assert (target - 0.5) * (p - 0.5) >= 0.0
    assert abs(target - 0.5) <= abs(p - 0.5) + 1e-12


@given(p=unit_interval, similarity=unit_interval)
def test_calibration_keeps_the_game_constant_sum(p, similarity):
    g = linear(np.float64(similarity))
    assert calibrate(np.float64(p), g) + calibrate(np.float64(1 - p), g) == pytest.approx(1.0, abs=1e-12)


def test_values_by_hand():
    assert linear(np.float64(0.3)) == pytest.approx(0.7)
    assert power(np.float64(0.5), exponent=2.0) == pytest.approx(0.25)
    assert threshold(np.float64(0.8), centre=0.8, sharpness=500.0) == pytest.approx(0.5)
    # ||u_i - u_j||^2 = 2 - 2*0.5 = 1: (1 - e^-2) / (1 - e^-4)
    assert kernel(np.float64(0.5), bandwidth=0.5) == pytest.approx((1 - np.exp(-2)) / (1 - np.exp(-4)))
    assert calibrate(np.float64(0.9), np.float64(0.25)) == pytest.approx(0.6)
