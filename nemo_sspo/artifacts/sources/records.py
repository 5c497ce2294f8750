"""Records of a file, of a directory of such files, or of a Hugging Face data set.

Importing this module is cheap, so that the command line can check every line before anything heavy starts.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.sources.csv_records import csv_fields, csv_records
from nemo_sspo.artifacts.sources.files import file_kind, source_files
from nemo_sspo.artifacts.sources.json_records import json_records
from nemo_sspo.artifacts.sources.table_records import table_fields, table_records
from nemo_sspo.errors import UserError

DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.\[\]%-]+)?")

_JSON_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source. A field that is null is absent, whatever it was stored in."""

    where: str
    """Its file and its line or row in that file, from 1."""
    value: Any
    """Its fields by the names that this package reads."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the source calls those of them that have another name there."""

    def called(self, name: str) -> str:
        """A field as messages show it: by the source's own name."""
        return f"`{self.names.get(name, name)}`"

    @property
    def fields(self) -> list[str]:
        """The names of its fields as the source has them, sorted."""
        return sorted(str(self.names.get(name, name)) for name in self.value)


def read_records(
    source: str, columns: Sequence[str], *, setting: str, names: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Read a source record by record.

    Args:
        source: a file, a directory (`source_files` chooses what is read of it), or a data set ``owner/name`` or
            ``owner/name:split``.
        columns: fields that the caller understands; others of a Parquet or Arrow file are not read.
        setting: the configuration key it came from, for the messages.
        names: what the source calls some of `columns`; its own fields of these names are not read then.

    Raises:
        UserError: there is no such source, a record cannot be read, or none has a field that `names` names; file and
            line are named.
    """
    renamed = {ours: theirs for ours, theirs in (names or {}).items() if ours in columns}
    path = Path(source)
    found: Iterator[tuple[str, Any]]
    if path.is_dir():
        found = (pair for file in source_files(path).taken for pair in _of_file(file, fields_read(columns, renamed)))
    elif path.exists():
        found = _of_file(path, fields_read(columns, renamed))
    elif is_file_name(source) or not DATASET_ID.fullmatch(source):
        raise UserError(f"{source}: no such file; check {setting}=... (or give a data set id like owner/name)")
    else:
        found = _of_dataset(source)
    return _renamed(source, found, renamed) if renamed else (Record(where, _held(value)) for where, value in found)


def fields_read(columns: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The fields of a source that are read, by its own names."""
    return [names.get(name, name) for name in columns]


def is_file_name(source: str) -> bool:
    """Whether a name has the ending of a file of records."""
    return file_kind(source) is not None


def is_on_disk(source: str) -> bool:
    """Whether a source is read from disk (or meant to be), not from a hub."""
    return Path(source).exists() or is_file_name(source) or not DATASET_ID.fullmatch(source)


def first_fields(source: str) -> list[str]:
    """Names of the fields that hold anything in the first JSON record of a local source; of a table all columns."""
    path = Path(source)
    file = next(iter(source_files(path).taken)) if path.is_dir() else path
    _refuse_no_file(file)
    if file_kind(file) in ("Parquet", "Arrow"):
        return table_fields(file)
    if file_kind(file) == "CSV":
        return csv_fields(file)
    first = next((_held(value) for _, value in json_records(file)), None)
    return list(first) if isinstance(first, dict) else []


def json_kind(value: object) -> str:
    """What a value is, in words; Parquet has further types, which keep their names."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return _JSON_KINDS.get(type(value), f"of type {type(value).__name__}")


def _held(value: Any) -> Any:
    """A record without the fields that are null."""
    if not isinstance(value, dict):
        return value
    return {name: content for name, content in value.items() if content is not None}


def _renamed(source: str, found: Iterator[tuple[str, Any]], names: Mapping[str, str]) -> Iterator[Record]:
    """The records with the fields of `names` under our names, in place of what the source has under these."""
    missing = dict(names)
    for where, value in found:
        if isinstance(value := _held(value), dict):
            ours = {name: value[theirs] for name, theirs in names.items() if theirs in value}
            others = {name: held for name, held in value.items() if name not in names and name not in names.values()}
            value = others | ours
            missing = {name: theirs for name, theirs in missing.items() if name not in ours}
        yield Record(where, value, names)
    for name, theirs in missing.items():
        raise UserError(f"{source}: no record has a field {theirs!r}, which data.columns.{name} names; correct it")


def _of_file(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    _refuse_no_file(path)
    match file_kind(path):
        case "Parquet" | "Arrow":
            return table_records(path, columns)
        case "CSV":
            return csv_records(path, columns)
        case "JSON":
            return json_records(path)
    raise UserError(f"{path}: unknown kind of file; give .jsonl, .jsonl.gz, .parquet, .arrow or .csv")


def _refuse_no_file(path: Path) -> None:
    """A pipe or a device never ends."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file; give one of JSON Lines, CSV or Parquet, or a directory of such")


def _of_dataset(source: str) -> Iterator[tuple[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{source}: no such file, and reading it as a Hugging Face data set needs the package datasets: "
            f"{sys.executable} -m pip install datasets"
        ) from None
    name, _, split = source.partition(":")
    row = 0
    try:
        for row, value in enumerate(load_dataset(name, split=split or "train"), start=1):
            yield f"{source} row {row}", value
    except Exception as error:  # a hub client raises of its own, its HTTP library's and pyarrow's kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        after = f" after row {row}" if row else ""
        raise UserError(f"{source}: cannot load this data set{after} ({reason})") from None
