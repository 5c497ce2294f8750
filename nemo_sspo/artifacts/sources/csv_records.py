"""Records of a CSV file (RFC 4180) whose first line names the fields. An empty cell is an absent field."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_sspo.artifacts.sources.lines import lines
from nemo_sspo.artifacts.sources.table_records import known_columns
from nemo_sspo.artifacts.text_files import MOST_BYTES
from nemo_sspo.errors import UserError


def csv_records(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each record begins, and its cells by field.

    Raises:
        UserError: the header has none of `columns`, or a record cannot be read; file and line are named.
    """
    rows = _rows(path)
    line, names = next(rows, (1, []))
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} line {line}: its header has {repeated!r} twice; name every field once")
    known_columns(path, names, columns)
    for line, cells in rows:
        if len(cells) != len(names):
            raise UserError(
                f"{path} line {line}: {len(cells)} cells, and its header names {len(names)}; put a text with commas "
                "or line ends in quotes"
            )
        yield f"{path} line {line}", {name: cell for name, cell in zip(names, cells, strict=True) if cell}


def csv_fields(path: Path) -> list[str]:
    """The fields that the header names."""
    return next(_rows(path), (1, []))[1]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins at, and its cells; blank lines are passed over."""
    csv.field_size_limit(MOST_BYTES)
    reader, line = csv.reader(_text(path), strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {line}: not CSV ({error}); every quote that opens must close") from None


def _text(path: Path) -> Iterator[str]:
    for line, raw in enumerate(lines(path), start=1):
        try:
            yield raw.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
            raise UserError(f"{path} line {line}: not UTF-8 ({byte}); save the file as UTF-8") from None
