"""Whatever a setting or a YAML file of the user's holds, a dry run ends in lines (`hostile.py`)."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_sspo.config.load import load_experiment
from tests.launch import ready_run
from tests.launch.hostile import dry_run

SEEDS, MUTATIONS = range(6), 20
NESTED = 3000
VALUES = (
    *("null", "true", "-1", "0", "1", "0.5", "1e400", "nan", "inf", "9" * 400, "9" * 5000, "''", "x", "'a b'", "a/b"),
    *("[]", "{}", "[[]]", "[1]", "[null]", "[x]", "{a: {b: 1}}", "{'': null}", "[a,b]", "${seed}", "${absent}"),
    *("${oc.env:HOME}", "'\\x00'", "'../..'", "/dev/zero", "/proc/self/mem", "'{{'", "package:os", "os:system", "~"),
    *("/" + "a" * 300, "a" * 300, "/" + "/".join(["a" * 200] * 30), "é" * 200, "'\ud800'", "\u202e", "owner/name"),
    *("[" * 100 + "]" * 100, "[" * NESTED + "]" * NESTED, "{a:" * NESTED + "1" + "}" * NESTED, "${where:1,1,x}"),
)
"""As they stand behind ``key=``."""
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
TEXTS = (
    *(b"", b"\xff", b"\0", b"[", b"{", b"- 1\n", b"'", b"x", b"1", b"null", b"---\na: 1\n---\nb: 2\n", b"&a [*a]\n"),
    *(
        b"&a {b: *a}\n",
        b"<<: [1, 2]\n",
        b"<<: *absent\n",
        b"a: !!python/object/apply:os.system [id]\n",
        b"? [a]\n: 1\n",
    ),
    *(b"a: 1\na: 2\n", b"a: 2001-01-01\n", b"a: !!binary '!'\n", b"\tkind: x\n", b"# @package _global_\nseed: [1]\n"),
    *(b"[" * 100_000, b"a: " * 50_000, b"k: " + b"9" * 100_000, b"- " * 20_000 + b"1", b"x" * 50_000_000),
    *(LAUGHS.encode(), b"defaults:\n  - mine\n", b"defaults: [/gate: mine]\n", b"defaults: 1\n", b"kind: ${kind}\n"),
)


def keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dry_run_with_a_hostile_setting_ends_in_lines(seed: int, place: Path) -> None:
    draw = random.Random(seed)
    every = list(keys(load_experiment(["experiment=quickstart", *ready_run.OVERRIDES]).model_dump()))
    for number in range(MUTATIONS):
        key, value = draw.choice(every), draw.choice(VALUES)
        plus = draw.choice(["", "", "", "+", "++", "~"])
        what = f"seed {seed}, {number}: {plus}{key}={value[:80]}"
        dry_run(what, (*ready_run.OVERRIDES, f"{plus}{key}={value}"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dry_run_with_a_hostile_yaml_ends_in_lines(seed: int, place: Path) -> None:
    draw = random.Random(seed)
    root = Path(__file__).parents[2] / "conf"
    shipped = sorted(path for path in root.glob("*/*.yaml") if path.parent.name != "experiment")
    for number in range(MUTATIONS):
        source = draw.choice(shipped)
        group = source.parent.name
        own = place / str(number) / group / "mine.yaml"
        own.parent.mkdir(parents=True)
        how = draw.choice(["text", "kind", "value", "value", "value"])
        if how == "text":
            own.write_bytes(draw.choice(TEXTS))
        elif how == "kind":
            draw.choice([own.mkdir, lambda own=own: os.mkfifo(own), lambda own=own: own.symlink_to(own.name)])()
        else:
            tree = yaml.safe_load(source.read_text()) or {}
            name = draw.choice([*tree, "kind", "absent"])
            value = draw.choice([value for value in VALUES if "\ud800" not in value])
            own.write_text(
                "".join(f"{key}: {value if key == name else entry}\n" for key, entry in (tree | {name: 0}).items())
            )
        what = f"seed {seed}, {number}: {own} ({how} of {source.stem})"
        dry_run(what, (*ready_run.OVERRIDES, f"{group}=mine"), place / str(number))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].decode("latin-1"))
def test_a_yaml_of_the_working_directory_ends_in_lines(place: Path, text: bytes) -> None:
    (place / "conf" / "gate").mkdir(parents=True)
    (place / "conf" / "gate" / "mine.yaml").write_bytes(text)
    dry_run(f"a YAML that begins with {text[:40]!r}", (*ready_run.OVERRIDES, "gate=mine"))
