"""An oracle whose judgement is a formula of the texts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nemo_sspo.oracle.judge.ties import count_ties
from nemo_sspo.oracle.protocol import Preferences, Row


class FormulaOracle:
    """Calls `logit(row)` on every row and remembers what it was asked."""

    def __init__(self, logit: Callable[[Row], float]) -> None:
        self.logit, self.asked = logit, []

    def compare(self, rows: Sequence[Row], on_progress: Callable[[int], None] = lambda done: None) -> Preferences:
        self.asked.extend(rows)
        logits = np.array([self.logit(row) for row in rows], dtype=np.float32)
        on_progress(len(rows))
        return Preferences(logits, np.array([len(row.first) > 5 for row in rows]), len(set(rows)))


class FormulaJudge(FormulaOracle):
    """The same, which counts its ties as a judge does."""

    def compare(self, rows: Sequence[Row], on_progress: Callable[[int], None] = lambda done: None) -> Preferences:
        found = super().compare(rows, on_progress)
        return replace(found, facts=count_ties(rows, found.logits_R))
