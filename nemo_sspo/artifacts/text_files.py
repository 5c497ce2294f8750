"""Text files that other programs wrote: ordinary ones, small enough to be held in memory."""

from pathlib import Path

from nemo_sspo.errors import UserError

MOST_BYTES = 64 * 2**20
"""Twice the largest tokenizer.json that is published."""


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is none.
        UnicodeDecodeError: it is not UTF-8.
        UserError: it is no file (a folder, a pipe, a device), larger, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path}: cannot be read (not a file)")
        if size > most:
            raise UserError(
                f"{path}: {size} bytes, more than the {most} that such a file has; see that it is the right one"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
