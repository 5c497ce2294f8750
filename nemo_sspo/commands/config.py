"""``nemo-sspo config``: all settings, or those that are named, with value and meaning, and each group's choices."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from nemo_sspo.commands.terminal import say
from nemo_sspo.config.choices import choice_meanings, groups
from nemo_sspo.config.describe import FieldMeaning
from nemo_sspo.config.load import WHOLE_TREE, describe
from nemo_sspo.config.mistakes import closest, nearest_key
from nemo_sspo.errors import UserError


def show_config(options: argparse.Namespace) -> int:
    """Print the settings; names among the overrides (``train.``, ``gate``, ``momentum``) choose which."""
    names = [given for given in options.overrides if _is_name(given)]
    rows = describe([given for given in options.overrides if not _is_name(given)], options.config_dir)
    known = groups(options.config_dir)
    sections = [name.rstrip(".") for name in names]
    shown = list({row.path: row for name in names for row in _named(name, rows, known)}.values()) if names else rows
    if options.json:
        print(json.dumps({row.path: row.value for row in shown}, indent=1))
        return 0
    console = Console()
    for group in known:
        if group in sections:
            say(console, f"# {group}=NAME takes one of:", "bold")
            for choice, meaning in choice_meanings(group, options.config_dir).items():
                say(console, f"{group}={choice}", "bold")
                say(console, meaning, "dim italic", indent=4)
    _show(console, shown, {group: choice_meanings(group, options.config_dir) for group in known if not names})
    return 0


def _show(console: Console, rows: Sequence[FieldMeaning], choices: Mapping[str, Mapping[str, str]]) -> None:
    """Every setting; before the first one of a group, and of all those of a group that sets any, its `choices`."""
    left = dict(choices)
    for row in rows:
        for group in [name for name in left if name in (*WHOLE_TREE, row.path.partition(".")[0])]:
            say(console, f"# {group}=NAME takes one of {', '.join(left.pop(group))}", "cyan")
        value = "null" if row.value is None else str(row.value)
        role = f"  # {row.role.remark}" if row.role else ""
        say(console, f"{row.path}: {value}{role}", "dim" if row.is_default else "bold")
        if row.meaning:
            say(console, row.meaning, "dim italic", indent=4)


def _named(name: str, rows: Sequence[FieldMeaning], known: Sequence[str]) -> list[FieldMeaning]:
    """The settings below a section, else those that have the name in theirs.

    Raises:
        UserError: there are none, and no such group.
    """
    section = name.rstrip(".")
    below = [row for row in rows if row.path == section or row.path.startswith(f"{section}.")]
    if found := below or [row for row in rows if name in row.path]:
        return found
    if section in known:
        return []
    of_group = next((group for group in known if section in choice_meanings(group)), None)
    if of_group is not None:
        raise UserError(f"config {name}: no setting; as a choice it is written {of_group}={section}")
    near = closest(section, [*known, *_sections(rows)])
    if not near and (key := nearest_key(section, [row.path for row in rows])):
        near = f" (did you mean {key}?)"
    raise UserError(f"config {name}: no such setting{near}; `nemo-sspo config` lists them")


def _sections(rows: Sequence[FieldMeaning]) -> Iterator[str]:
    return (row.path.partition(".")[0] for row in rows if "." in row.path)


def _is_name(given: str) -> bool:
    """``~key`` takes a setting away."""
    return "=" not in given and not given.startswith("~")
