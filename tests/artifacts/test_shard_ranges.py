"""Shards in one word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.artifacts.shard_ranges import shard_ranges, shards_in


@pytest.mark.parametrize(("shards", "text"), [((0,), "0"), ((0, 1, 2), "0-2"), ((7, 0, 1, 3, 4), "0-1,3-4,7")])
def test_shards_as_sbatch_takes_them(shards, text):
    assert shard_ranges(shards) == text
    assert shards_in(text) == tuple(sorted(shards))


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_word_names_the_shards_it_was_made_of(shards):
    assert shards_in(shard_ranges(list(shards))) == tuple(sorted(shards))


@pytest.mark.parametrize("word", ["", "x", "-1", "1-", "1,,2", "1 2", "0-1-2", "3-1", "0,3-1"])
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match="expected shards as in 3"):
        shards_in(word)
