"""Records of a JSON Lines file, or of a file that holds one JSON list."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.json_text import parse_json, parse_json_list
from nemo_sspo.artifacts.sources.lines import lines
from nemo_sspo.artifacts.text_files import MOST_BYTES
from nemo_sspo.errors import UserError

_MOST_FIELDS = 1_000_000
"""A gigabyte and half a minute are what three times as many take."""
_ONE_OBJECT = "every line must be one JSON object"


def json_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each value is, and the value: a line's of JSON Lines, or an item's of a list that is the whole file.

    Raises:
        UserError: a line cannot be read; file and line are named.
    """
    found, is_first = lines(path), True
    for line, raw in enumerate(found, start=1):
        if not raw.strip():
            continue
        if is_first and _begins_a_list(raw):
            yield from _of_list(path, line, chain([raw], found))
            return
        is_first = False
        if raw.count(b'":') > _MOST_FIELDS:
            raise UserError(f"{path} line {line}: more than {_MOST_FIELDS} fields; no record has as many")
        yield f"{path} line {line}", parse_json(raw.rstrip(), path, line, _ONE_OBJECT)


def _begins_a_list(raw: bytes) -> bool:
    """Whether the first line that is not blank is all, or the beginning, of a list of objects."""
    text = raw.removeprefix(b"\xef\xbb\xbf").strip()
    return text == b"[" or (text.startswith(b"[") and text[1:].lstrip().startswith(b"{"))


def _of_list(path: Path, line: int, found: Iterator[bytes]) -> Iterator[tuple[str, Any]]:
    text = bytearray()
    for raw in found:
        text += raw
        if len(text) > MOST_BYTES:
            raise UserError(
                f"{path}: one JSON list of more than {MOST_BYTES} bytes; write it as JSON Lines: jq -c '.[]' FILE"
            )
    values = parse_json_list(bytes(text), path, line)
    yield from ((f"{path} row {row}", value) for row, value in enumerate(values, start=1))
