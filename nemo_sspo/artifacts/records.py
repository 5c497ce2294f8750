"""Records of a JSONL or Parquet file, of a directory of such files, or of a Hugging Face data set.

Importing this module is cheap, so that the command line can check every line before anything heavy starts.
"""

import codecs
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError

JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.\[\]%-]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_JSON_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}

Record = tuple[int, Any, bool]
"""Line (1-based, counted over all files of a directory), record, whether bytes that are no UTF-8 were replaced."""


def read_records(source: str, columns: Sequence[str], *, setting: str) -> Iterator[Record]:
    """Read a source record by record.

    Args:
        source: a file, a directory with `.parquet` or `.jsonl` files (those with ``train`` in their name where there
            are any), or a data set ``owner/name`` or ``owner/name:split``.
        columns: fields that the caller understands; others of a Parquet file are not read.
        setting: the configuration key it came from, for the messages.

    Raises:
        UserError: there is no such source, or a line cannot be read; file and line are named.
    """
    path = Path(source)
    if path.is_dir():
        return _directory_records(path, columns)
    if path.is_file():
        return _file_records(path, columns)
    if is_file_name(source) or not DATASET_ID.fullmatch(source):
        raise UserError(f"{source}: no such file; check {setting}=... (or give a data set id like owner/name)")
    return _dataset_records(source)


def is_file_name(source: str) -> bool:
    """Whether a name has the ending of a file of records."""
    suffix = Path(source).suffix
    return suffix == ".parquet" or suffix in JSON_SUFFIXES


def is_on_disk(source: str) -> bool:
    """Whether a source is read from disk (or meant to be), not from a hub."""
    return Path(source).exists() or is_file_name(source) or not DATASET_ID.fullmatch(source)


def json_kind(value: object) -> str:
    """What a value is, in words; Parquet has further types, which keep their names."""
    return _JSON_KINDS.get(type(value), f"of type {type(value).__name__}")


def has_surrogates(text: str) -> bool:
    """Whether a text holds lone surrogates: they have no UTF-8 form, and JSON escapes can smuggle them in."""
    return _SURROGATE.search(text) is not None


def without_surrogates(text: str) -> str:
    """The text with U+FFFD in place of lone surrogates."""
    return _SURROGATE.sub(_REPLACEMENT, text)


def _directory_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_file_name(file.name))
    data = [file for file in files if file.suffix != ".json"]
    chosen = [file for file in data if "train" in file.relative_to(path).as_posix()] or data
    if not chosen:
        raise UserError(f"{path}: no .parquet or .jsonl file in this directory")
    records = (record for file in chosen for record in _file_records(file, columns))
    for line, (_, record, repaired) in enumerate(records, start=1):
        yield line, record, repaired


def _file_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    if path.suffix == ".parquet":
        return _parquet_records(path, columns)
    if path.suffix in JSON_SUFFIXES:
        return _json_records(path)
    raise UserError(f"{path}: unknown kind of file; give .jsonl or .parquet")


def _json_records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            raw = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            if not raw.strip():
                continue
            text, replaced = _decode(raw)
            try:
                record = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path} line {line}: not JSON ({error.msg} at column {error.colno}); "
                    "every line must be one JSON object"
                ) from None
            yield line, record, replaced


def _decode(raw: bytes) -> tuple[str, bool]:
    try:
        return raw.decode(), False
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), True


def _parquet_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        known = [name for name in columns if name in names]
        if not known:
            raise UserError(f"{path}: none of {', '.join(columns)} among its columns {sorted(names)}; rename one")
        batches: Iterable[pa.RecordBatch] = file.iter_batches(columns=known)
        rows = (row for batch in batches for row in batch.to_pylist())
        for line, row in enumerate(rows, start=1):
            yield line, {name: value for name, value in row.items() if value is not None}, False
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None


def _dataset_records(source: str) -> Iterator[Record]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{source}: no such file, and reading it as a Hugging Face data set needs the package datasets: "
            f"{sys.executable} -m pip install datasets"
        ) from None
    name, _, split = source.partition(":")
    try:
        dataset = load_dataset(name, split=split or "train")
    except Exception as error:  # a hub client raises of its own, its HTTP library's and pyarrow's kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: cannot load this data set ({reason})") from None
    for line, row in enumerate(dataset, start=1):
        yield line, row, False
