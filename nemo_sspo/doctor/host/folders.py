"""Which folder and which file system a path that may not be there yet will lie in."""

from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())


def file_system(folder: Path) -> str:
    """Kind of the file system that a folder lies in (``nfs4``, ``lustre``, ``ext4``); "" where it is not known."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= best:  # a later mount lies over an earlier one
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind
