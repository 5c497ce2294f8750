"""MT-Bench: the grades that FastChat's judge left in its checkout, by turn or by category."""

from statistics import fmean

from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.files import read_rows
from nemo_sspo.public_benchmarks.formats import MtBenchQuestion
from nemo_sspo.public_benchmarks.mt_bench import MtBench
from nemo_sspo.reproduce.declarations import MtBenchColumn
from nemo_sspo.reproduce.needs import Cell
from nemo_sspo.reproduce.place import Missing, Place

_GRADES = "data/mt_bench/model_judgment"
_TURNS = {"turn_1": 1, "turn_2": 2}


def value(place: Place, cell: Cell) -> float:
    """The mean grade, 1 to 10, over questions and turns. FastChat's -1 is no grade and is left out, as by its own."""
    column, policy = cell.column, cell.policy
    assert isinstance(column, MtBenchColumn)
    assert policy is not None
    files = sorted((place.tool("mt-bench") / _GRADES).glob("*_single.jsonl"))
    name = place.examinee(policy).name
    rows = [row for file in files for row in read_rows(file) if row.get("model") == name]
    if not rows:
        raise Missing("not judged")
    if column.value in _TURNS:
        rows = [row for row in rows if row["turn"] == _TURNS[column.value]]
    elif column.value != "average":
        of_category = _questions(place, column.value)
        rows = [row for row in rows if row["question_id"] in of_category]
    grades = [float(row["score"]) for row in rows if row["score"] != -1]
    if not grades:
        raise UserError(f"{files[-1]}: no grade of {name} in {column.value}")
    return fmean(grades)


def _questions(place: Place, category: str) -> set[int | str]:
    if "mt-bench" not in place.questions:
        raise Missing("categories are in the questions: --questions mt-bench=FILE")
    found = MtBench().questions(place.questions["mt-bench"])
    return {q.record.question_id for q in found if q.category == category and isinstance(q.record, MtBenchQuestion)}
