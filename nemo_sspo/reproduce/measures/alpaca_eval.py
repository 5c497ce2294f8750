"""AlpacaEval: the leaderboard that a judge left beside the answers."""

import csv

from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.alpaca_eval import judged_by
from nemo_sspo.reproduce.declarations import AlpacaEvalColumn
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place


def value(place: Place, cell: Cell) -> float:
    """Win rates in percent, or the answers' mean length in characters."""
    column, policy = cell.column, cell.policy
    assert isinstance(column, AlpacaEvalColumn)
    assert policy is not None
    folder = judged_by(place.answers(policy, "alpaca-eval"), column.annotator)
    files = sorted(folder.rglob("leaderboard.csv"))
    if not files:
        raise Missing(f"not judged by {column.annotator}")
    name = place.examinee(policy).name
    with files[-1].open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if next(iter(row.values())) == name:
                try:
                    return float(row[column.value])
                except (KeyError, ValueError):
                    raise UserError(f"{files[-1]}: {name} has no number in {column.value}") from None
    raise UserError(f"{files[-1]}: no row of {name}; have the answers judged again")
