"""Which runs make the study: Table 5 under every dial, its neighbours and controls under the stronger one."""

from collections.abc import Iterator

from nemo_sspo.lab.language.arms import BASELINES, CONTROLS, GATES, REPULSIONS, TABLE_5, Arm

DIALS = (2.0, 6.0)
"""How sure the judge is inside a meaning: median win probability of pairs of equal meaning .87 and .997."""
MAIN_DIAL = DIALS[-1]
TRUE = 0.0
"""The dial of a judge that is not wrong."""


NEIGHBOURS_SEEDS = 8
"""Other gates and repulsions are played with the first so many seeds."""


def runs(seed: int, *, small: bool = False) -> Iterator[tuple[Arm, float]]:
    """A seed's arms with the dial of their judge, the most important first; `small` is Table 5 under the main dial."""
    yield from ((arm, MAIN_DIAL) for arm in TABLE_5)
    if small:
        return
    yield from ((arm, dial) for dial in (DIALS[0], TRUE) for arm in TABLE_5)
    yield from ((arm, MAIN_DIAL) for arm in (*CONTROLS, *BASELINES))
    if seed < NEIGHBOURS_SEEDS:
        yield from ((arm, MAIN_DIAL) for arm in (*GATES, *REPULSIONS))
