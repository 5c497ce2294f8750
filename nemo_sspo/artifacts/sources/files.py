"""Which files of a directory are its records, by the conventions of `datasets` and pyarrow."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.errors import UserError

JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_DIRECTORY_SUFFIXES = {".parquet", ".jsonl", ".ndjson"}
"""A .json in a directory is a description of the data set as a rule."""
_PASSED_OVER = (".", "_", "~")
"""How the names of files and folders begin that are hidden, of an editor, or of the system that wrote the others."""
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Whole words in the names of files and folders that `datasets` reads as splits."""
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_BETWEEN_WORDS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """What is read of a directory, and what is not."""

    taken: tuple[Path, ...]
    left_out: tuple[str, ...]
    """Names below the directory, files of records first; a folder that is passed over ends in a slash."""


def suffix(name: str | Path) -> str:
    """The ending of a file's name, in small letters."""
    return Path(name).suffix.lower()


def source_files(directory: Path) -> SourceFiles:
    """The files of the split ``train``; without one those of no split; else those of the only split that there is.

    Raises:
        UserError: there is no file of records, or only files of several splits.
    """
    found, passed_over = _found(directory)
    splits: dict[str, list[str]] = {}
    for name in found:
        splits.setdefault(_split(name), []).append(name)
    chosen = next((split for split in ("train", "") if split in splits), next(iter(splits), ""))
    if chosen not in ("train", "") and len(splits) > 1:
        raise UserError(
            f"{directory}: holds files of the splits {' and '.join(sorted(splits))} and none of train; give the file "
            "or folder that is meant"
        )
    if not found:
        beside = f", only {', '.join(passed_over[:3])}" if passed_over else ""
        raise UserError(f"{directory}: no .parquet or .jsonl file in this directory{beside}")
    taken = splits[chosen]
    other = [name for name in found if name not in set(taken)]
    return SourceFiles(tuple(directory / name for name in taken), (*other, *passed_over))


def _found(directory: Path) -> tuple[list[str], list[str]]:
    """Files of records below a directory, and what else there is. Links to folders are not followed."""
    found: list[str] = []
    passed_over: list[str] = []
    for root, folders, files in os.walk(directory):
        below = Path(root).relative_to(directory)
        skipped = [name for name in folders if name.startswith(_PASSED_OVER) or Path(root, name).is_symlink()]
        folders[:] = [name for name in folders if name not in skipped]
        passed_over += [f"{(below / name).as_posix()}/" for name in skipped]
        for name in files:
            is_data = suffix(name) in _DIRECTORY_SUFFIXES and not name.startswith(_PASSED_OVER)
            (found if is_data else passed_over).append((below / name).as_posix())
    return sorted(found), sorted(passed_over, key=lambda name: (suffix(name) not in _DIRECTORY_SUFFIXES, name))


def _split(name: str) -> str:
    """The split that a name says; the words of the file count more than those of its folders."""
    words = _BETWEEN_WORDS.split(name.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), "")
