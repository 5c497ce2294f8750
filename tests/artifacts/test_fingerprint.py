"""A fingerprint changes with any name, size or byte that it reads, and with nothing else."""

import os

from nemo_sspo.artifacts.fingerprint import UNSEEN, differ, fingerprint

MIB = 2**20


def test_a_directory_is_its_names_and_contents_not_its_place_or_age(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "sub" / "weights").write_bytes(b"123")
    os.utime(tmp_path / "b" / "config.json", (0, 0))
    first = fingerprint(tmp_path / "a")
    assert fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / "sub" / "weights").write_bytes(b"124")
    assert fingerprint(tmp_path / "b") != first
    (tmp_path / "a" / "sub" / "weights").rename(tmp_path / "a" / "weights")
    assert fingerprint(tmp_path / "a") != first


def test_hidden_files_come_and_go(tmp_path):
    """A look into a directory with a notebook or a file manager does not make its records others."""
    folder = tmp_path / ".cache"
    folder.mkdir()
    (folder / "train.jsonl").write_text("{}")
    before = fingerprint(folder)
    for name in (".DS_Store", ".ipynb_checkpoints/train-checkpoint.jsonl", "sub/._train.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
        assert fingerprint(folder) == before
    (folder / "sub" / "a.b").write_text("x")
    assert fingerprint(folder) != before


def test_of_a_large_file_both_ends_and_the_size_count(tmp_path):
    path = tmp_path / "model.safetensors"
    seen = set()
    for content in (b"0" * 4 * MIB, b"1" + b"0" * (4 * MIB - 1), b"0" * (4 * MIB - 1) + b"1", b"0" * (4 * MIB + 1)):
        path.write_bytes(content)
        seen.add(fingerprint(path))
    assert len(seen) == 4


def test_what_cannot_be_seen_is_not_known_to_differ():
    assert differ("a", "b")
    assert differ("a", None)
    assert not differ("a", "a")
    assert not differ("a", UNSEEN)
    assert not differ(UNSEEN, "a")
