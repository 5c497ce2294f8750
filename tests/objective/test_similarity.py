"""Cosines by hand, and what storing vectors as float16 does to them."""

import numpy as np
import pytest

from nemo_sspo.objective.similarity import cosines, unit_rows


def test_cosines_by_hand():
    vectors = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, -3.0], [0.0, 0.0]]])
    half = np.sqrt(0.5)
    expected = [[1, half, 0, 0], [half, 1, -half, 0], [0, -half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosines(vectors)[0], expected, atol=1e-15)


def test_rounding_to_float16_moves_a_cosine_by_less_than_a_thousandth():
    """Lengths are off by up to 2^-11 after rounding; normalized again, equal rows have a cosine of 1 and never more."""
    generator = np.random.default_rng(0)
    for size in (2, 384, 1024):
        vectors = unit_rows(generator.normal(size=(50, 4, size)))
        vectors[:, 3] = vectors[:, 0]
        stored = vectors.astype(np.float16)
        assert np.abs(np.linalg.norm(stored.astype(np.float64), axis=-1) - 1).max() > 1e-6
        rounded = cosines(stored)
        np.testing.assert_allclose(rounded, cosines(vectors), atol=1e-3)
        assert rounded[:, 0, 3] == pytest.approx(1, abs=1e-12)
        assert rounded.max() <= 1 + 1e-12
