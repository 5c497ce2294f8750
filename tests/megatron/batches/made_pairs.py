"""Preference pairs, one by hand and lists of drawn ones."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from nemo_sspo.megatron.batches.microbatch import (
    PreferencePair,
)

ids = st.lists(st.integers(1, 99), min_size=1, max_size=9)
pairs = st.lists(
    st.builds(
        PreferencePair,
        pair_id=st.just("p"),
        prompt_ids=ids,
        chosen_ids=ids,
        rejected_ids=ids,
        ref_chosen=st.floats(-50, 0, width=32),
        ref_rejected=st.floats(-50, 0, width=32),
        target_chosen=st.floats(0, 1, width=32),
        target_rejected=st.floats(0, 1, width=32),
        target_pair=st.floats(0, 1, width=32),
    ),
    min_size=1,
    max_size=4,
)


def pair(**changes: object) -> PreferencePair:
    made = PreferencePair("p", [5, 6], [7, 8, 2], [9, 2], -3.0, -4.0, 0.9, 0.2, 0.8)
    return replace(made, **changes)
