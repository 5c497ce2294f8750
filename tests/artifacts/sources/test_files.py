"""What is read of a directory of records: the right files, each once, and the others are named."""

import json
from pathlib import Path

import pytest

from nemo_sspo.artifacts.sources.files import source_files
from nemo_sspo.artifacts.sources.prompts import read_prompts
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.notes import notes


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps({"prompt": name}))
    return root


def taken(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in source_files(root).taken]


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["constraints.jsonl", "prompts.jsonl"], ["constraints.jsonl", "prompts.jsonl"]),
        (["restraint/a.jsonl", "other/b.jsonl"], ["other/b.jsonl", "restraint/a.jsonl"]),
        (["contest.jsonl", "latest.parquet", "device.jsonl"], ["contest.jsonl", "device.jsonl", "latest.parquet"]),
        (["train.jsonl", "test.jsonl", "more.jsonl"], ["train.jsonl"]),
        (["data/train-00000-of-00002.parquet", "data/test-00000.parquet"], ["data/train-00000-of-00002.parquet"]),
        (["train/a.jsonl", "validation/a.jsonl"], ["train/a.jsonl"]),
        (["Train_1.JSONL", "dev_1.jsonl"], ["Train_1.JSONL"]),
        (["train/test_set.jsonl", "train/a.jsonl"], ["train/a.jsonl"]),
        (["prompts.jsonl", "eval.jsonl"], ["prompts.jsonl"]),
        (
            ["test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"],
            ["test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"],
        ),
    ],
)
def test_a_split_is_a_whole_word(tmp_path: Path, names: list[str], read: list[str]) -> None:
    root = made(tmp_path / "train", *names)  # the name of the directory itself says nothing
    assert taken(root) == read
    assert sorted([*read, *source_files(root).left_out]) == sorted(names)


def test_two_splits_without_training_files_are_refused(tmp_path: Path) -> None:
    root = made(tmp_path / "set", "test.jsonl", "validation.jsonl")
    with pytest.raises(
        UserError, match="holds files of the splits test and validation and none of train; give the file"
    ):
        read_prompts(str(root))


STRAY = [
    ".ipynb_checkpoints/train-checkpoint.jsonl",
    "._train.jsonl",
    ".#train.jsonl",
    ".train.jsonl.swp",
    "train.jsonl~",
    "#train.jsonl#",
    "~$train.jsonl",
    ".DS_Store",
    "__MACOSX/._train.jsonl",
    "_temporary/0/part-0.parquet",
    "train.json",
    "train.csv",
    "train.jsonl.gz",
    "README.md",
]


def test_files_of_editors_and_systems_are_no_records_and_are_named(tmp_path: Path) -> None:
    root = made(tmp_path / "set", "train.jsonl", *STRAY)
    (root / "link").symlink_to(tmp_path)
    read = read_prompts(str(root), duplicates="drop")
    assert [c.messages[0]["content"] for c in read.conversations] == ["train.jsonl"]
    whole = {".ipynb_checkpoints/", "__MACOSX/", "_temporary/", "link/"}
    assert set(source_files(root).left_out) == whole | {name for name in STRAY if "/" not in name}


def test_a_directory_without_records_tells_what_lies_there(tmp_path: Path) -> None:
    root = made(tmp_path / "set", "prompts.json", "prompts.txt")
    with pytest.raises(
        UserError,
        match=r"no \.parquet, \.jsonl, \.jsonl\.gz or \.csv file in this directory, only prompts\.json, prompts\.txt",
    ):
        read_prompts(str(root))


def test_the_plan_names_what_is_left_out(tmp_path: Path) -> None:
    root = made(tmp_path / "set", "train.jsonl", "test.jsonl", *(f"notes_{number}.txt" for number in range(6)))
    own = ["experiment=quickstart", "policy=own"]
    (note,) = notes(load_experiment([*own, f"prompts={root}"]))
    assert note.startswith(f"prompts={root}: not read of this directory: test.jsonl, notes_0.txt, ")
    assert note.endswith("and 2 more")
    assert notes(load_experiment([*own, f"prompts={made(tmp_path / 'one', 'a.jsonl')}"])) == []
