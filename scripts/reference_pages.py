"""The pages of the manual that the code itself is: every setting, and every file of a run.

python -m scripts.reference_pages docs/generated
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from nemo_sspo.artifacts import diagnostics, manifest, tables
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.artifacts.table import Table
from nemo_sspo.config.choices import choice_meanings, groups
from nemo_sspo.config.describe import REQUIRED, FieldMeaning, describe_settings, kinds_of_keys
from nemo_sspo.stages.runner.registry import STAGES

ROOT = Path(__file__).parents[1]
COPIED = {"extending.md": "CONTRIBUTING.md", "slurm.md": "slurm/README.md", "toy.md": "scripts/toy/README.md"}
"""Pages that stand beside what they are about."""

PRESETS = ("model", "method", "experiment")
"""Groups of ``conf/`` whose choices set many sections."""


def main(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"configuration.md": configuration(), "artifacts.md": artifacts()}
    for name, source in COPIED.items():
        pages[name] = (ROOT / source).read_text(encoding="utf-8")
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def configuration() -> str:
    """Every setting of every kind, with its default and its meaning.

    Defaults are the classes' own: what ``conf/`` sets for an experiment stands in its files.
    """
    lines = [
        "# Every setting\n",
        "Made from the configuration's own classes. A setting is given as `section.name=value` on the command line or "
        "in a YAML of yours; where a section has kinds, `section=name` chooses one of the files named below it. What "
        "*may change* can be given another value in the middle of a run: it changes results by rounding at most.\n",
    ]
    plain = [each for each in describe_settings({}) if "." not in each.path]
    lines += ["## The run\n", *_table(("setting", "default", "meaning"), map(_row, plain))]
    for group in PRESETS:
        lines += [f"## {group}\n", *_choices(group)]
    for section in dict.fromkeys(name.split(".")[0] for name in kinds_of_keys() if "." in name):
        kinds = kinds_of_keys().get(f"{section}.kind", ("",))
        found = {kind: _settings(section, kind) for kind in kinds}
        lines.append(f"## {section}\n")
        if section in groups():
            lines += _choices(section)
        for kind, settings in found.items():
            if kind:
                lines.append(f"### {section}.kind = {kind}\n")
            lines += _table(("setting", "default", "meaning"), map(_row, settings))
    return "\n".join(lines)


def _choices(group: str) -> list[str]:
    named = ((f"`{group}={name}`", meaning) for name, meaning in sorted(choice_meanings(group).items()))
    return _table(("choice", "what it is"), named)


def _settings(section: str, kind: str) -> list[FieldMeaning]:
    tree = {section: {"kind": kind}} if kind else {}
    found = [each for each in describe_settings(tree) if re.split(r"\.", each.path)[0] == section]
    return [each for each in found if each.path != f"{section}.kind"]


def _row(each: FieldMeaning) -> tuple[str, str, str]:
    default = "required" if each.value == REQUIRED else f"`{_shown(each.value)}`"
    remark = f" *{each.role.remark[0].upper()}{each.role.remark[1:]}.*" if each.role is not None else ""
    return f"`{each.path}`", default, each.meaning + remark


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str) and value else json.dumps(value)


def artifacts() -> str:
    """The manifest, every table's columns, diagnostics.json, and the facts of every stage."""
    lines = [
        "# Every file of a run\n",
        "Made from the declarations that stages write by. A run is `runs/<name>/`: `prompts/`, then "
        "`iter_<t>/<stage>/` of every iteration (`shard_<n>/` below it where a stage has shards), each a folder that "
        "appears only when it is complete. Ids are hashes of content. Nothing is a pickle.\n",
        "## manifest.json\n",
        "Beside the files of every artifact.\n",
        *_table(("field", "meaning"), ((f"`{name}`", text) for name, text in _meanings(manifest, Manifest.__name__))),
        "## Tables\n",
        "Parquet files, compressed by zstd; a reader refuses another schema by name.\n",
    ]
    notes = dict(_meanings(tables, None))
    for name, table in vars(tables).items():
        if isinstance(table, Table):
            lines += [f"### {table.file}\n", f"{notes.get(name, '')}\n"]
            lines += _table(("column", "type"), ((f"`{column.name}`", f"`{column.type}`") for column in table.schema))
    lines += ["## diagnostics.json\n", f"{_plain(diagnostics.__doc__ or '')}\n"]
    for cls in diagnostics.FilePart.__subclasses__():
        if cls.__module__ == diagnostics.__name__:
            lines += [f"### {cls.__name__}\n", *_table(("field", "meaning"), _fields(cls))]
    lines += ["## What each stage reports\n", "Under `counts` in its manifest.\n"]
    for name, stage in STAGES.items():
        lines += [f"### {name}\n", *_table(("fact", "meaning"), _fields(stage.facts))]
    return "\n".join(lines)


def _fields(cls: Any) -> Iterator[tuple[str, str]]:
    for name, field in cls.model_fields.items():
        yield f"`{name}`", field.description or ""


def _meanings(module: ModuleType, cls: str | None) -> Iterator[tuple[str, str]]:
    """(name, the string below it) of a module's or a class's assignments."""
    body: list[ast.stmt] = ast.parse(inspect.getsource(module)).body
    if cls is not None:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == cls)
    for node, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        assert isinstance(target, ast.Name)
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
        if cls is None or isinstance(node, ast.AnnAssign):
            yield target.id, _plain(str(text))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _table(headings: tuple[str, ...], rows: Any) -> list[str]:
    found = [tuple(map(_cell, row)) for row in rows]
    lines = (f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *found))
    return ["\n".join(lines) + "\n"] if found else ["None.\n"]


def _cell(text: str) -> str:
    """Markdown of one line: code stays code, and what looks like a tag outside of it is text."""
    parts = _plain(text.replace("``", "`")).split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
