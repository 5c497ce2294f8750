"""Arena-Hard v0.1: the win rate against its baseline, from the verdicts that its judge left in its checkout.

Each model meets the baseline alone, so the Bradley-Terry fit of show_result.py gives back the share of what it won: a
verdict A>>B counts three times, a tie as half a win. In the first game the baseline is A, in the second the model is.
"""

from nemo_sspo.public_benchmarks.files import read_rows
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

_VERDICTS = {"A>>B": (3.0, 0.0), "A>B": (1.0, 0.0), "A=B": (0.5, 0.5), "B>A": (0.0, 1.0), "B>>A": (0.0, 3.0)}
"""What each side wins."""


def value(place: Place, cell: Cell) -> float:
    """The win rate in percent."""
    assert cell.policy is not None
    name = place.examinee(cell.policy).name
    files = sorted(place.tool("arena-hard").glob(f"data/arena-hard-v*/model_judgment/*/{name}.jsonl"))
    if not files:
        raise Missing("not judged")
    won = lost = 0.0
    for row in read_rows(files[-1]):
        for number, game in enumerate(row["games"]):
            of_a, of_b = _VERDICTS.get(game["score"], (0.0, 0.0))  # a verdict that cannot be read counts for nobody
            won, lost = (won + of_b, lost + of_a) if number == 0 else (won + of_a, lost + of_b)
    if not won + lost:
        raise Missing(f"{files[-1]} holds no verdict")
    return 100 * won / (won + lost)
