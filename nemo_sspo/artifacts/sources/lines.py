"""Lines of a text file, compressed by gzip or not."""

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nemo_sspo.artifacts.sources.files import is_zipped
from nemo_sspo.artifacts.text_files import MOST_BYTES
from nemo_sspo.errors import UserError


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as they stand there.

    Raises:
        UserError: it cannot be read or decompressed, or a line is longer than any record.
    """
    try:
        with gzip.open(path) if is_zipped(path) else path.open("rb") as file:
            for line, raw in enumerate(iter(partial(file.readline, MOST_BYTES + 1), b""), start=1):
                if len(raw) > MOST_BYTES:
                    raise UserError(f"{path} line {line}: more than {MOST_BYTES} bytes; no record is that long")
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); compress it again, or give it as it is") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
