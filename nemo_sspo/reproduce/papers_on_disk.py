"""Reading the declarations, and the names that a command may give them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from nemo_sspo.config.mistakes import closest
from nemo_sspo.errors import UserError
from nemo_sspo.reproduce.declarations import Paper, Table, policy_of

_ROOT = Path(__file__).parent / "papers"
_NAME = re.compile(r"(tab(?:le)?|fig(?:ure)?)[-. ]?(\d+)", re.IGNORECASE)
Declared = TypeVar("Declared", bound=BaseModel)


def papers() -> list[str]:
    """Names of the papers."""
    return sorted(path.name for path in _ROOT.iterdir() if path.is_dir())


def tables(paper: str) -> list[str]:
    """Names of a paper's tables and figures, tables first."""
    names = [path.stem for path in (_ROOT / paper).glob("*-*.yaml")]
    return sorted(names, key=lambda name: (not name.startswith("table"), int(name.rpartition("-")[2])))


def load_paper(name: str) -> Paper:
    """A paper's runs and checkpoints."""
    return _read(_ROOT / name / "paper.yaml", Paper)


def table_name(paper: str, given: str) -> str:
    """The table's name as its file has it: ``table-5`` of ``Table 5``, ``figure-3`` of ``fig3``.

    Raises:
        UserError: the paper has none of that name.
    """
    match = _NAME.fullmatch(given)
    name = f"{'table' if match[1][0] in 'tT' else 'figure'}-{match[2]}" if match else given
    known = tables(paper)
    if name not in known:
        raise UserError(f"{given}: no such table or figure of {paper}{closest(name, known)}; one of {', '.join(known)}")
    return name


def load_table(paper: str, name: str) -> Table:
    """A table or figure.

    Raises:
        UserError: its file is not what it should be, or it names a run or checkpoint that its paper does not declare.
    """
    path, declared = _ROOT / paper / f"{name}.yaml", load_paper(paper)
    table = _read(path, Table)
    for text, iteration in _policies(table):
        policy = policy_of(text, iteration)
        if policy.name not in (declared.checkpoints if policy.iteration is None else declared.runs):
            raise UserError(f"{path}: {policy} is no run or checkpoint of {path.with_name('paper.yaml')}")
    return table


def _policies(table: Table) -> Iterator[tuple[str, int | None]]:
    for column in table.columns:
        yield from ((row.policy, column.iteration) for row in table.rows if row.policy is not None)
        if column.measure == "pairrm":
            yield column.opponent, column.iteration


def _read(path: Path, model: type[Declared]) -> Declared:
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
