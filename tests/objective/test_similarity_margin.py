"""The similarity-margin table by hand, in blocks, and under the gates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.objective.similarity_margin import SimilarityMargin, margins

unit = st.floats(0, 1)
pairs = st.lists(st.tuples(unit, unit), min_size=1, max_size=40)


def table(similarity, margin, bins=4) -> SimilarityMargin:
    made = SimilarityMargin(bins)
    made.add(np.array(similarity, dtype=float), np.array(margin, dtype=float))
    return made


def test_margins_are_symmetric_in_the_two_responses():
    np.testing.assert_allclose(margins(np.array([0.0, 0.1, 0.5, 0.9, 1.0])), [1.0, 0.8, 0.0, 0.8, 1.0])


def test_by_hand():
    made = table([0.0, 0.1, 0.25, 0.8, 1.0], [0.2, 0.9, 0.8, 0.81, 1.0])
    assert made.count_I.tolist() == [2, 1, 0, 2]  # 0.25 opens the second bin, 1.0 closes the last
    np.testing.assert_allclose(made.similarity_I, [0.1, 0.25, 0.0, 1.8])
    np.testing.assert_allclose(made.margin_I, [1.1, 0.8, 0.0, 1.81])
    assert made.confident_I.tolist() == [1, 0, 0, 2]  # 0.8 itself is not above 0.8


@given(pairs)
def test_correlation_is_pearsons(values):
    similarity, margin = map(np.array, zip(*values, strict=True))
    found = table(similarity, margin).correlation()
    if min(similarity.var(), margin.var()) < 1e-6:
        return  # too little variation for two formulas to agree
    assert found == pytest.approx(np.corrcoef(similarity, margin)[0, 1], abs=1e-6)


@given(pairs, st.integers(0, 40))
def test_blocks_add_up(values, cut):
    similarity, margin = map(np.array, zip(*values, strict=True))
    whole, parts = table(similarity, margin), table(similarity[:cut], margin[:cut])
    parts.add(similarity[cut:], margin[cut:])
    for name in ("count_I", "similarity_I", "margin_I", "confident_I"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-12)


def test_no_correlation_without_variation():
    assert table([0.5, 0.5], [0.1, 0.9]).correlation() is None
