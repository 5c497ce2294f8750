"""Making the assets: whole or not at all, and not twice."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from scripts.toy import make_assets


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """The seeds for which `make` was called; it writes one file instead of training."""
    seeds: list[int] = []

    def fake_make(folder: Path, seed: int) -> dict[str, object]:
        seeds.append(seed)
        (folder / "policy").write_text(f"seed {seed}")
        return {"loss": 1.0}

    monkeypatch.setattr(make_assets, "make", fake_make)
    return seeds


def run(output: Path, seed: int = 0) -> None:
    make_assets.main(["--output", str(output), "--seed", str(seed), "--threads", "1"])


def test_second_call_does_nothing_and_another_seed_replaces(made, tmp_path, capsys) -> None:
    output = tmp_path / "assets" / "toy"
    run(output)
    run(output)
    assert made == [0]
    assert "up to date" in capsys.readouterr().out
    run(output, seed=1)
    assert made == [0, 1]
    assert (output / "policy").read_text() == "seed 1"
    assert json.loads((output / "manifest.json").read_text())["seed"] == 1
    assert [p.name for p in output.parent.iterdir()] == ["toy"]


def test_everyone_who_may_read_the_assets_may_read_their_weights(made, tmp_path, monkeypatch) -> None:
    def make_with_weights(folder: Path, seed: int) -> dict[str, object]:
        (folder / "model.safetensors").touch(mode=0o600)  # as safetensors leaves them
        return {}

    monkeypatch.setattr(make_assets, "make", make_with_weights)
    run(tmp_path / "toy")
    modes = {(tmp_path / "toy" / name).stat().st_mode for name in ("manifest.json", "model.safetensors")}
    assert len(modes) == 1


def test_a_failure_leaves_the_old_assets_and_no_draft(made, tmp_path, monkeypatch) -> None:
    output = tmp_path / "toy"
    run(output)

    def failing_make(folder: Path, seed: int) -> dict[str, object]:
        (folder / "policy").write_text("half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(make_assets, "make", failing_make)
    with pytest.raises(RuntimeError, match="disk full"):
        run(output, seed=1)
    assert (output / "policy").read_text() == "seed 0"
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"digest": "other"}'])
def test_assets_without_the_right_manifest_are_made_again(made, tmp_path, manifest) -> None:
    output = tmp_path / "toy"
    output.mkdir()
    if manifest is not None:
        (output / "manifest.json").write_text(manifest)
    run(output)
    assert made == [0]


def test_digest_follows_code_data_and_seed(tmp_path, monkeypatch) -> None:
    before = make_assets.assets_digest(0)
    assert before == make_assets.assets_digest(0)
    assert before != make_assets.assets_digest(1)
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(make_assets.dataset, "DATA", data)
    assert make_assets.assets_digest(0) != before
