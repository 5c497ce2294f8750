"""JSON written by other programs: every error is one line that names the file and the line in it."""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\r\n]*")
_MOST_DIGITS = 4300  # Python's default limit for converting digits
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _RepeatedKeyError(ValueError):
    """An object has a key twice: it is ambiguous."""


def parse_json(raw: bytes, path: Path, line: int = 1, advice: str = "") -> Any:
    """The value of a JSON text in UTF-8. Integers of more than 4300 digits, Python's limit, become floats.

    Args:
        path: the file it is from.
        line: where it begins in that file, from 1.
        advice: what to do when it is not JSON.

    Raises:
        UserError: it is not UTF-8, not JSON, nested too deeply, or has a key twice in one object.
    """
    with _named(raw, path, line, advice):
        return _decoded("decode", raw.removeprefix(codecs.BOM_UTF8).decode())


def parse_json_list(raw: bytes, path: Path, line: int = 1) -> Iterator[Any]:
    """The values of a JSON list one by one, where `parse_json` would hold all of them at once.

    Raises:
        UserError: see `parse_json`; what is wrong with a value is raised where it is reached.
    """
    with _named(raw, path, line, ""):
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
        at, mark = text.index("[") + 1, ","
        while mark == ",":
            value, at = _decoded("raw_decode", text, _behind_spaces(text, at))
            yield value
            at = _behind_spaces(text, at) + 1
            mark = text[at - 1 : at]
        if mark != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at - 1)
        if (at := _behind_spaces(text, at)) < len(text):
            raise json.JSONDecodeError("Extra data", text, at)


def _behind_spaces(text: str, at: int) -> int:
    found = _SPACES.match(text, at)
    return found.end() if found else at


@contextmanager
def _named(raw: bytes, path: Path, line: int, advice: str) -> Iterator[None]:
    """What is wrong with a JSON text, as a UserError that names file and line."""
    try:
        yield
    except UnicodeDecodeError as error:
        at = line + error.object.count(b"\n", 0, error.start)
        found = f"byte 0x{error.object[error.start]:02x} at column {_column(error.object, error.start)}"
        guess = "; it looks like UTF-16" if raw.startswith(_WIDE_MARKS) else ""
        raise UserError(f"{path} line {at}: not UTF-8 ({found}){guess}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        todo = "it holds NUL bytes, as UTF-16 does: save the file as UTF-8" if b"\0" in raw else advice
        found = f"{error.msg} at column {error.colno}"
        at = line + error.lineno - 1
        raise UserError(f"{path} line {at}: not JSON ({found}){todo and f'; {todo}'}") from None
    except _RepeatedKeyError as error:
        raise UserError(f"{path} line {line}: {error} is there twice in one object; remove one of them") from None
    except RecursionError:
        raise UserError(f"{path} line {line}: JSON nested too deeply to be read; remove what is nested so") from None


def _decoded(method: Literal["decode", "raw_decode"], *arguments: Any) -> Any:
    try:
        return getattr(_DECODER, method)(*arguments)
    except (json.JSONDecodeError, _RepeatedKeyError):
        raise
    except ValueError:  # an integer of too many digits; to look at each one costs seconds where there are many
        return getattr(_OF_LONG_INTEGERS, method)(*arguments)


def refuse_surrogates(where: str, text: str) -> None:
    """Raise a UserError for a lone surrogate: JSON's escapes can smuggle them in, and they have no UTF-8 form."""
    if found := _SURROGATE.search(text):
        raise UserError(
            f"{where} holds the lone surrogate \\u{ord(found.group()):04x} at character {found.start() + 1}: half of a "
            "character, or a byte of another encoding; correct the text"
        )


def _column(raw: bytes, position: int) -> int:
    return position - raw.rfind(b"\n", 0, position)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _RepeatedKeyError(f"`{next(name for name, count in counts.items() if count > 1)}`")
    return made


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_OF_LONG_INTEGERS = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
