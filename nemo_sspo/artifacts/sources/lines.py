"""Lines of a text file, compressed by gzip or not."""

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nemo_sspo.artifacts.sources.files import is_zipped
from nemo_sspo.artifacts.text_files import MOST_BYTES
from nemo_sspo.errors import UserError

_MOST_TIMES = 200
"""What a compressed file of records may grow by; text grows by 3 to 10."""


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as they stand there.

    Raises:
        UserError: it cannot be read or decompressed, or a line or a compressed file is larger than any of records.
    """
    size, zipped = 0, is_zipped(path)
    try:
        most = MOST_BYTES + _MOST_TIMES * path.stat().st_size
        with gzip.open(path) if zipped else path.open("rb") as file:
            for line, raw in enumerate(iter(partial(file.readline, MOST_BYTES + 1), b""), start=1):
                size += len(raw)
                if len(raw) > MOST_BYTES:
                    raise UserError(f"{path} line {line}: more than {MOST_BYTES} bytes; no record is that long")
                if zipped and size > most:
                    raise UserError(f"{path} line {line}: over {_MOST_TIMES} times as large as compressed: no text is")
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error}); compress it again, or give it as it is") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
