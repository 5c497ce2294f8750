"""Records of a Parquet or Arrow file."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_sspo.artifacts.sources.files import file_kind
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def table_records(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row is, and its values of those of `columns` that the file has.

    Raises:
        UserError: it has none of them, or a row cannot be read; file and row are named.
    """
    import pyarrow as pa

    try:
        known = known_columns(path, table_fields(path), columns)
        row = 0
        for batch in _batches(path, known):
            for value in _rows(batch, path, row):
                row += 1
                yield f"{path} row {row}", value
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable {file_kind(path)} file ({reason})") from None


def known_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Those of `columns` that are among a table's `names`.

    Raises:
        UserError: there is none.
    """
    if known := [name for name in columns if name in names]:
        return known
    raise UserError(
        f"{path}: none of {', '.join(columns)} among its columns {sorted(names)}; rename one, or name it in "
        "data.columns.prompt=..."
    )


def table_fields(path: Path) -> list[str]:
    """Names of all columns."""
    import pyarrow.parquet as pq

    if file_kind(path) == "Parquet":
        return list(pq.read_schema(path).names)
    with closing(_arrow(path)) as reader:
        return list(reader.schema.names)


def _batches(path: Path, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    if file_kind(path) == "Parquet":
        yield from pq.ParquetFile(path).iter_batches(columns=list(columns))
        return
    with closing(_arrow(path)) as reader:
        yield from (batch.select(list(columns)) for batch in reader)


def _arrow(path: Path) -> "pa.RecordBatchReader":
    """Batches of a file in Arrow's format of streams, which `datasets` writes, or in that of files."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        return pa.RecordBatchReader.from_batches(file.schema, batches)


def _rows(batch: "pa.RecordBatch", path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a batch; `before` stand in front of it. Neither format looks at the bytes of a text."""
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
