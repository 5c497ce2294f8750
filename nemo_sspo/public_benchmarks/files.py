"""Reading question files and writing answer files."""

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nemo_sspo.artifacts.json_text import parse_json
from nemo_sspo.errors import UserError

Record = TypeVar("Record", bound=BaseModel)


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON list or of a JSONL file.

    Raises:
        UserError: there is no such file, it holds no row, or a line is not JSON in UTF-8.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file; give the benchmark's questions with --questions") from None
    is_list = raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    rows = list(parse_json(raw, path) if is_list else _lines(path, raw))
    if not rows:
        raise UserError(f"{path}: holds no question")
    return rows


def read_row(path: Path, row: int, value: Any, model: type[Record]) -> Record:
    """One row as a record.

    Raises:
        UserError: it is not one; file, row and field are named.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the row"
        raise UserError(
            f"{path} row {row}: `{field}`: {first['msg'][0].lower()}{first['msg'][1:]}; "
            f"expected {', '.join(model.model_fields)} of {' '.join((model.__doc__ or '').split())}"
        ) from None


def refuse_repeated(path: Path, ids: Sequence[str | int]) -> None:
    """Raise a UserError when two rows have one id: a judge would lose an answer."""
    first: dict[str | int, int] = {}
    for row, id_ in enumerate(ids, start=1):
        if first.setdefault(id_, row) != row:
            raise UserError(f"{path} row {row}: the same id as row {first[id_]}, {id_!r}; remove one of them")


def as_jsonl(records: Sequence[BaseModel]) -> str:
    """One line per record, in fields' own names, fields that are not set left out."""
    return "".join(json.dumps(as_data(record), ensure_ascii=False) + "\n" for record in records)


def as_data(record: BaseModel) -> dict[str, Any]:
    """A record as it is written."""
    return record.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _lines(path: Path, raw: bytes) -> Iterator[Any]:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            yield parse_json(line.rstrip(), path, number, "every line must be one object")
