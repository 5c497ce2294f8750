"""Whether files outside the run have changed since it began."""

import hashlib
from pathlib import Path

_EDGE_BYTES = 2**20
UNSEEN = "not seen from here"
"""In place of a fingerprint, where a file is known to lie elsewhere only: in a stage's environment or image."""


def differ(before: object, after: object) -> bool:
    """Whether two recorded values are known to be different."""
    return before != after and UNSEEN not in (before, after)


def fingerprint(path: Path) -> str:
    """32 hex digits over a file, or over every file of a directory that is not hidden: names, sizes, and content.

    Of a file above 2 MiB only the first and the last MiB are read: a 70B policy is checked before every step.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else ""
        if not file.is_file() or f"/{name}".count("/."):  # hidden files are never read
            continue
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as content:
            if size <= 2 * _EDGE_BYTES:
                digest.update(content.read())
            else:
                digest.update(content.read(_EDGE_BYTES))
                content.seek(-_EDGE_BYTES, 2)
                digest.update(content.read())
    return digest.hexdigest()[:32]
