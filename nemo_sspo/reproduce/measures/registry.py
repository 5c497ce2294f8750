"""Which function reads a measure."""

from collections.abc import Callable, Mapping

from nemo_sspo.reproduce.measures import alpaca_eval, arena_hard, lm_eval, loop, mt_bench, responses
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

MEASURES: Mapping[str, Callable[[Place, Cell], float | str]] = {
    "alpaca-eval": alpaca_eval.value,
    "mt-bench": mt_bench.value,
    "arena-hard": arena_hard.value,
    "lm-eval": lm_eval.value,
    "cost": loop.cost,
    "margin": loop.margin,
    "held-out": loop.held_out,
    "pairrm": responses.win_rate,
    "answer": responses.answer,
}
"""Each raises Missing, or UserError where a file is not what it should be."""


def ours(place: Place, cell: Cell) -> float | str:
    """Our number of a cell.

    Raises:
        Missing: it is not there, and why.
        UserError: a file is not what it should be.
    """
    if cell.policy is None:
        raise Missing("no weights are public")
    if cell.row.best_of is not None:
        raise Missing(f"answers to a public benchmark are not re-ranked: best-of-{cell.row.best_of} is not measured")
    return MEASURES[cell.column.measure](place, cell)
