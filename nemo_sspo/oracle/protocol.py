"""What a preference oracle offers to the stages.

Legend: R rows. A row is (prompt, first response, second response), in the order in which the oracle is shown them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Row(NamedTuple):
    """One comparison, as texts."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """Raw judgements of R rows."""

    logits_R: NDArray[np.float32]
    """> 0 favours the response shown first. It depends on the order: l(a, b) is not -l(b, a) in general."""
    truncated_R: NDArray[np.bool_]
    """Whether the oracle saw less than the whole of some text of the row."""
    unique_rows: int
    """Rows that were really computed; equal rows are computed once."""


class PreferenceOracle(Protocol):
    """Judges rows independently of each other: a row's logit does not depend on its neighbours."""

    def compare(self, rows: Sequence[Row], on_progress: Callable[[int], None] = ...) -> Preferences:
        """Judge `rows`; `on_progress` is told how many are done."""
        ...
