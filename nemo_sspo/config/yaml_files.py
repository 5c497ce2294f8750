"""The user's YAML files before Hydra reads them: whatever would keep it from ending is said in one line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from nemo_sspo.errors import UserError

_MOST_BYTES = 2**20
_MOST_VALUES = 10_000
_DEEPEST = 50
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse_unreadable(files: Iterable[Path]) -> None:
    """Look at every YAML file.

    Raises:
        UserError: one is no file, too long, not UTF-8, nested too deeply, or grows beyond measure by its aliases.
    """
    for file in files:
        if problem := next(_problems(file), None):
            raise UserError(problem)


def _problems(file: Path) -> Iterator[str]:
    if not file.is_file():
        yield f"{file}: cannot be read (not a file)"
        return
    if (size := file.stat().st_size) > _MOST_BYTES:
        yield f"{file}: {size} bytes, more than the {_MOST_BYTES} that a configuration has"
        return
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield f"{file} line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
        return
    try:
        yield from _growth(file, text)
    except yaml.YAMLError:  # Hydra's reader says where
        return


def _growth(file: Path, text: str) -> Iterator[str]:
    """Count values as a reader makes them, those behind an alias each time that it stands there."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_LOADER):
        line, anchor = event.start_mark.line + 1, getattr(event, "anchor", None)
        if len(open_) == 1 and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.MappingStartEvent):
            yield f"{file} line {line}: expected settings, one `name: value` a line"
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed, size = open_.pop()
            sizes |= {closed: size} if closed else {}
            open_[-1] = (open_[-1][0], open_[-1][1] + size)
        elif isinstance(event, yaml.AliasEvent):
            if any(name == anchor for name, _ in open_):
                yield f"{file} line {line}: *{anchor} stands inside of what it names; write it out"
            open_[-1] = (open_[-1][0], open_[-1][1] + sizes.get(str(anchor), 0))
        elif isinstance(event, yaml.ScalarEvent):
            sizes |= {anchor: 1} if anchor else {}
            open_[-1] = (open_[-1][0], open_[-1][1] + 1)
        if len(open_) > _DEEPEST:
            yield f"{file} line {line}: nested more than {_DEEPEST} deep"
        if open_[-1][1] > _MOST_VALUES:
            yield f"{file} line {line}: more than {_MOST_VALUES} values, aliases (*name) counted as what they stand for"
