"""A table of an artifact: one Parquet file that is written whole and read as its schema alone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nemo_sspo.errors import UserError

Rows: TypeAlias = pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A table, its columns by name, or its rows."""

BATCH_ROWS = 2048
"""Rows of a part, where a table is read in parts."""


@dataclass(frozen=True)
class Table:
    """A Parquet file of an artifact."""

    file: str
    schema: pa.Schema

    def of(self, rows: Rows) -> pa.Table:
        """Rows as a table of this schema."""
        if isinstance(rows, Mapping):
            return pa.table(dict(rows), schema=self.schema)
        if not isinstance(rows, pa.Table):
            if not all(isinstance(row, Mapping) for row in rows):
                raise TypeError(f"{self.file}: columns need names; pyarrow makes rows of nulls of a list of lists")
            return pa.Table.from_pylist(list(rows), schema=self.schema)
        if not rows.schema.equals(self.schema, check_metadata=False):
            raise ValueError(f"{self.file} cannot hold the columns {rows.schema}")
        return rows

    def write(self, folder: Path, rows: Rows) -> None:
        """Write the file, whole or not at all; equal content makes equal bytes."""
        temporary = folder / f".{self.file}.{os.getpid()}.tmp"
        pq.write_table(self.of(rows), temporary, compression="zstd")
        os.replace(temporary, folder / self.file)

    def writer(self, folder: Path) -> pq.ParquetWriter:
        """A writer of the file in parts, for a table that is too large to be held in memory."""
        return pq.ParquetWriter(folder / self.file, self.schema, compression="zstd")

    def open(self, folder: Path) -> pq.ParquetFile:
        """The file, for its metadata and to be read in parts.

        Raises:
            UserError: it is missing, cannot be read, or has another schema.
        """
        path = folder / self.file
        with self._readable(folder):
            file = pq.ParquetFile(path)
        if not file.schema_arrow.equals(self.schema, check_metadata=False):
            names = file.schema_arrow.names
            file.close()
            raise UserError(f"{path}: columns {names} with types other than this version writes; make it again")
        return file

    def read(self, folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table, or some columns of it (``responses.list.element.text``); raises as `open` does."""
        with self.open(folder) as file, self._readable(folder):
            # Threads gain nothing on a shard, and each keeps memory of its own.
            return file.read(columns, use_threads=False)

    def batches(self, folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The same in parts of `BATCH_ROWS` rows, for a table that is too large to be held in memory."""
        with self.open(folder) as file, self._readable(folder):
            for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])

    def matching(self, folder: Path, key: str, wanted: pa.Array, columns: Sequence[str]) -> pa.Table:
        """The rows whose value in column `key`, one of `columns`, is wanted. Memory holds a part and what is found."""
        found = [part.filter(pc.is_in(part[key], value_set=wanted)) for part in self.batches(folder, columns)]
        return pa.concat_tables(found) if found else self.read(folder, columns)

    @contextmanager
    def _readable(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{folder}: no {self.file} in this artifact") from None
        except (OSError, pa.ArrowInvalid) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{folder / self.file}: not a readable Parquet file ({reason})") from None
