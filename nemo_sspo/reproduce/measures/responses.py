"""Answers to the questions of one's own: what a policy said, and who wins where an oracle compares them."""

import json

from nemo_sspo.reproduce.declarations import PairRMColumn, policy_of
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

ANSWERS = "model_outputs.json"
MATRIX = "win_rates.json"


def answer(place: Place, cell: Cell) -> str:
    """What the policy said to the first question."""
    assert cell.policy is not None
    file = place.answers(cell.policy, "own") / ANSWERS
    if not file.is_file():
        raise Missing("not asked")
    text = json.loads(file.read_bytes())[0]["output"]
    assert isinstance(text, str)
    return text


def win_rate(place: Place, cell: Cell) -> float:
    """The row's win rate against the column's policy, of the table's matrix."""
    assert isinstance(cell.column, PairRMColumn)
    file = place.matrix / MATRIX
    if not file.is_file():
        raise Missing("not compared")
    wins = json.loads(file.read_bytes())["win_rates"]
    return float(wins[str(cell.policy)][str(policy_of(cell.column.opponent, cell.column.iteration))])
