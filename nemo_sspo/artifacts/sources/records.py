"""Records of a JSONL or Parquet file, of a directory of such files, or of a Hugging Face data set.

Importing this module is cheap, so that the command line can check every line before anything heavy starts.
"""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_sspo.artifacts.json_text import parse_json
from nemo_sspo.artifacts.sources.files import JSON_SUFFIXES, source_files, suffix
from nemo_sspo.artifacts.text_files import MOST_BYTES
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.\[\]%-]+)?")

_ONE_OBJECT = "every line must be one JSON object"
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


def read_records(source: str, columns: Sequence[str], *, setting: str) -> Iterator[Record]:
    """Read a source record by record.

    Args:
        source: a file, a directory (`source_files` chooses what is read of it), or a data set ``owner/name`` or
            ``owner/name:split``.
        columns: fields that the caller understands; others of a Parquet file are not read.
        setting: the configuration key it came from, for the messages.

    Raises:
        UserError: there is no such source, or a record cannot be read; file and line are named.
    """
    path = Path(source)
    if path.is_dir():
        return (record for file in source_files(path).taken for record in _file_records(file, columns))
    if path.exists():
        return _file_records(path, columns)
    if is_file_name(source) or not DATASET_ID.fullmatch(source):
        raise UserError(f"{source}: no such file; check {setting}=... (or give a data set id like owner/name)")
    return _dataset_records(source)


def is_file_name(source: str) -> bool:
    """Whether a name has the ending of a file of records."""
    return suffix(source) == ".parquet" or suffix(source) in JSON_SUFFIXES


def is_on_disk(source: str) -> bool:
    """Whether a source is read from disk (or meant to be), not from a hub."""
    return Path(source).exists() or is_file_name(source) or not DATASET_ID.fullmatch(source)


def first_fields(source: str) -> list[str]:
    """Names of the fields that hold anything in the first record of a local source; of Parquet all columns."""
    path = Path(source)
    file = next(iter(source_files(path).taken)) if path.is_dir() else path
    _refuse_no_file(file)
    if suffix(file) == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(file).names)
    first = next((record.value for record in _json_records(file)), None)
    return list(first) if isinstance(first, dict) else []


def json_kind(value: object) -> str:
    """What a value is, in words; Parquet has further types, which keep their names."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return _JSON_KINDS.get(type(value), f"of type {type(value).__name__}")


def _record(where: str, value: Any) -> Record:
    if isinstance(value, dict):
        value = {name: content for name, content in value.items() if content is not None}
    return Record(where, value)


def _file_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    _refuse_no_file(path)
    if suffix(path) == ".parquet":
        return _parquet_records(path, columns)
    if suffix(path) in JSON_SUFFIXES:
        return _json_records(path)
    raise UserError(f"{path}: unknown kind of file; give .jsonl or .parquet")


def _refuse_no_file(path: Path) -> None:
    """A pipe or a device never ends."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file; give one of JSON Lines or Parquet, or a directory of such")


def _json_records(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as file:
            for line, raw in enumerate(iter(partial(file.readline, MOST_BYTES + 1), b""), start=1):
                if len(raw) > MOST_BYTES:
                    raise UserError(f"{path} line {line}: more than {MOST_BYTES} bytes; no record is that long")
                if raw.strip():
                    yield _record(f"{path} line {line}", parse_json(raw.rstrip(), path, line, _ONE_OBJECT))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _parquet_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        known = [name for name in columns if name in names]
        if not known:
            raise UserError(f"{path}: none of {', '.join(columns)} among its columns {sorted(names)}; rename one")
        row = 0
        for batch in file.iter_batches(columns=known):
            for value in _rows(batch, path, row):
                row += 1
                yield _record(f"{path} row {row}", value)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from None


def _rows(batch: "pa.RecordBatch", path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a batch; `before` stand in front of it. Parquet takes any bytes for text."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                batch.slice(row, 1).to_pylist()
            except UnicodeDecodeError as error:
                byte = f"byte 0x{error.object[error.start]:02x}"
                raise UserError(f"{path} row {before + row + 1}: not UTF-8 ({byte}); write its text as UTF-8") from None
        raise


def _dataset_records(source: str) -> Iterator[Record]:
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
            yield _record(f"{source} row {row}", value)
    except Exception as error:  # a hub client raises of its own, its HTTP library's and pyarrow's kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        after = f" after row {row}" if row else ""
        raise UserError(f"{source}: cannot load this data set{after} ({reason})") from None
