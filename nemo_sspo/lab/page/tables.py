"""Markdown tables of what the studies found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.lab.language.comparison import LEVEL
from nemo_sspo.lab.language.hypotheses import Outcome
from nemo_sspo.lab.language.results import Results

MEASURES = {
    "true_win_rate": "true win rate",
    "judged_win_rate": "judged win rate",
    "alignment": "cosine with the true gradient",
    "gradient_noise": "gradient noise",
    "wording_entropy": "entropy of wordings (nats)",
    "garbled": "no sentence",
    "d_chosen": "chosen log-ratio",
    "d_rejected": "rejected log-ratio",
    "hidden_cosine": "cosine of hidden states",
}
"""Columns of the table of arms."""


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; a bar inside a cell is no border."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def findings(data: Mapping[str, Any]) -> str:
    """A study's hypotheses with their verdicts and numbers."""
    rows = [
        (
            "held" if found["held"] else "**failed**",
            f"{found['name']}: {found['claim']}",
            found["source"],
            "; ".join(f"{name} {number:g}" for name, number in found["measured"].items()),
        )
        for found in data["findings"]
    ]
    return table(("", "claim", "whose", "measured"), rows)


def hypotheses(outcomes: Sequence[Outcome]) -> str:
    """The language games' comparisons."""
    rows = [
        (
            found.verdict if found.verdict == "held" else f"**{found.verdict}**",
            found.hypothesis.claim,
            found.hypothesis.source,
            f"{found.hypothesis.measure}: {found.paired.difference}",
            f"{found.paired.wins} of {found.paired.seeds}",
            f"{found.adjusted_p:.2g}",
        )
        for found in outcomes
    ]
    return table(("", "claim", "whose", "difference [95 %]", "seeds in which it is greater", "p (Holm)"), rows)


def arms(results: Results, dial: float, names: Sequence[str]) -> str:
    """Means of every measure at the last iteration, with half the width of their intervals."""
    rows = []
    for name in names:
        if seeds := results.seeds(name, dial):
            cells = [over_seeds(results.values(name, dial, measure)) for measure in MEASURES]
            rows.append((name, len(seeds), *(f"{cell.mean:.3f} ± {(cell.high - cell.low) / 2:.3f}" for cell in cells)))
    return table(("arm", "seeds", *MEASURES.values()), rows)


def over_seeds(values: Mapping[int, float]) -> Interval:
    """Mean over seeds with its 95 % interval of Student's t."""
    found = np.array([values[seed] for seed in sorted(values)])
    reach = stats.t.ppf(1 - LEVEL / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return Interval(float(found.mean()), float(found.mean() - reach), float(found.mean() + reach))
