"""YAML files of the user's that would keep the reader from ending, or fill the memory."""

import os
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError

BEGIN = "# @package _global_\ndefaults:\n  - quickstart\n  - _self_\n"
LISTS = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MAPS = LISTS.replace("[", "{<<: [").replace("]", "]}").replace("{<<: [1]}", "{x: 1}")
HOSTILE = {
    "aliases": (LISTS, r"e\.yaml line \d+: more than 10000 values, aliases \(\*name\) counted"),
    "merges": (MAPS, r"e\.yaml line \d+: more than 10000 values"),
    "an alias of itself": ("a: &a [*a]\n", r"e\.yaml line 5: \*a stands inside of what it names"),
    "depth": ("a: " + "[" * 100_000 + "\n", r"e\.yaml line 5: nested more than 50 deep"),
    "size": ("policy: " + "x" * 2**20 + "\n", r"e\.yaml: \d+ bytes, more than"),
    "digits": ("seed: 0x" + "f" * 5_000 + "\n", "seed=a number of thousands of digits"),
    "an interpolation of itself": ("seed: ${seed}\n", "ecursive|itself"),
    "no number": ("train: {learning_rate: .inf}\n", "train.learning_rate=inf"),
}


def load(folder: Path, text: str) -> None:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "e.yaml").write_text(text)
    load_experiment(["experiment=e"], folder)


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_line_says_what_is_wrong(tmp_path: Path, kind: str) -> None:
    text, message = HOSTILE[kind]
    with pytest.raises(UserError, match=message) as refused:
        load(tmp_path, BEGIN + text)
    assert len(str(refused.value)) < 400


def test_a_default_of_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the configuration refers to itself, or is nested too deeply"):
        load(tmp_path, "# @package _global_\ndefaults:\n  - e\n")


def test_aliases_of_an_ordinary_number_are_read(tmp_path: Path) -> None:
    load(tmp_path, BEGIN + "name: &name own\nruns_dir: *name\n")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    os.mkfifo(tmp_path / "gate" / "own.yaml")
    with pytest.raises(UserError, match=r"own\.yaml: cannot be read \(not a file\)"):
        load(tmp_path, BEGIN)


@pytest.mark.parametrize(
    "override",
    ["seed=" + "9" * 5_000, "+a=" + "[" * 3_000 + "]" * 3_000, "iterations=10000000", "rollout.shards=100000000"],
)
def test_overrides_beyond_measure(override: str) -> None:
    with pytest.raises(UserError) as refused:
        load_experiment(["experiment=quickstart", override])
    assert len(str(refused.value)) < 800
