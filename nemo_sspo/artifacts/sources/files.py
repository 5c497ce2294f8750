"""Which files of a directory are its records, by the conventions of `datasets` and pyarrow."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.errors import UserError

FileKind = Literal["JSON", "CSV", "Parquet", "Arrow"]

_KINDS: dict[str, FileKind] = {
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".json": "JSON",
    ".csv": "CSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
}
_ZIPPED = ".gz"
_OF_A_DIRECTORY = (
    {".parquet", ".jsonl", ".ndjson"},
    {".arrow"},
    {".jsonl.gz", ".ndjson.gz"},
    {".csv", ".csv.gz"},
)
"""Endings of a directory's records: the first of these sets that it has any of. A .json in a directory is a
description of the data set as a rule."""
_STATE = "state.json"
"""Names the files of a data set in a folder that `datasets` saved; others in it are its cache."""
_DESCRIPTIONS = {_STATE, "dataset_info.json", "dataset_dict.json"}
"""What stands beside these files, and holds no record."""
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


def ending(name: str | Path) -> str:
    """The ending of a file's name, in small letters: that of a compressed file with what it is, as .jsonl.gz."""
    path = Path(name)
    last = path.suffix.lower()
    return f"{Path(path.stem).suffix.lower()}{last}" if last == _ZIPPED else last


def is_zipped(name: str | Path) -> bool:
    """Whether a file's name says that it was compressed by gzip."""
    return ending(name).endswith(_ZIPPED)


def file_kind(name: str | Path) -> FileKind | None:
    """How a file of records is written, by its ending; None where it is none."""
    kind = _KINDS.get(ending(name).removesuffix(_ZIPPED))
    return kind if kind in ("JSON", "CSV") or not is_zipped(name) else None


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
        raise UserError(f"{directory}: no .parquet, .jsonl, .jsonl.gz or .csv file in this directory{beside}")
    taken = splits[chosen]
    other = [name for name in found if name not in set(taken)]
    return SourceFiles(tuple(directory / name for name in taken), (*other, *passed_over))


def _found(directory: Path) -> tuple[list[str], list[str]]:
    """Files of records below a directory, and what else there is. Links to folders are not followed."""
    files: list[str] = []
    folders: list[str] = []
    for root, below, names in os.walk(directory):
        here = Path(root).relative_to(directory)
        skipped = [name for name in below if name.startswith(_PASSED_OVER) or Path(root, name).is_symlink()]
        below[:] = [name for name in below if name not in skipped]
        folders += [f"{(here / name).as_posix()}/" for name in skipped]
        files += [(here / name).as_posix() for name in names]
    visible = [name for name in files if not Path(name).name.startswith(_PASSED_OVER)]
    found = _of_one_kind(directory, visible)
    every = set().union(*_OF_A_DIRECTORY)
    known = {*found, *(name for name in files if Path(name).name in _DESCRIPTIONS and _is_saved_set(found))}
    passed_over = sorted({*files, *folders} - known, key=lambda name: (ending(name) not in every, name))
    return sorted(found), passed_over


def _of_one_kind(directory: Path, names: Sequence[str]) -> list[str]:
    """The names with the first set of endings that any of them has."""
    for endings in _OF_A_DIRECTORY:
        found = [name for name in names if ending(name) in endings]
        if endings == {".arrow"}:
            found = [name for name in found if Path(name).name in _saved_files((directory / name).parent)]
        if found:
            return found
    return []


def _is_saved_set(found: Sequence[str]) -> bool:
    return any(ending(name) == ".arrow" for name in found)


def _saved_files(folder: Path) -> set[str]:
    """The names of a saved data set's own files in its folder."""
    files = json_or_empty(folder / _STATE).get("_data_files")
    return {str(file.get("filename")) for file in files or () if isinstance(file, dict)}


def _split(name: str) -> str:
    """The split that a name says; the words of the file count more than those of its folders."""
    words = _BETWEEN_WORDS.split(name.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), "")
