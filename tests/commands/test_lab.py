"""``nemo-sspo lab``: what it prints and keeps."""

import json
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from tests.lab.text.arena import write

PUBLISHED = Path(__file__).parents[2] / "docs" / "lab" / "game.json"


def test_the_study_of_games_prints_every_hypothesis_and_keeps_the_same(tmp_path, capsys):
    assert cli.main(["lab", "game", "--seeds", "2", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    kept = json.loads((tmp_path / "game.json").read_text())
    assert kept["command"] == "nemo-sspo lab game --seeds 2"
    assert kept["versions"].keys() >= {"python", "numpy", "scipy"}
    held = [finding["held"] for finding in kept["findings"]]
    assert shown.count("\nheld  ") + shown.startswith("held  ") == sum(held)
    assert f"{sum(held)} hypotheses held, {len(held) - sum(held)} failed" in shown
    published = json.loads(PUBLISHED.read_text())
    assert [(finding["name"], finding["claim"]) for finding in published["findings"]] == [
        (finding["name"], finding["claim"]) for finding in kept["findings"]
    ]
    assert [row[:5] for row in published["rows"]] == [row[:5] for row in kept["rows"]]
    columns = kept["columns"]
    assert len(kept["rows"]) == len({tuple(row[:5]) for row in kept["rows"]})
    (row,) = [dict(zip(columns, row, strict=True)) for row in kept["rows"] if row[:5] == ["sampled", "none", 4, 4, 0]]
    assert row["gap_less_ungated"] == [0, 0, 0]
    assert f"{row['gap'][0]:.3f}" in next(line for line in shown.splitlines() if line.startswith("none "))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "1"], "error: --seeds 1: give 2 or more, for an interval over them"),
        (["--output", "nowhere"], "error: --output nowhere: no such folder"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_computed(arguments, said, capsys):
    assert cli.main(["lab", "game", *arguments]) == 2
    assert capsys.readouterr().err.strip() == said


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A stand-in for the rollout environment's, which tells its arguments."""
    monkeypatch.setattr("nemo_sspo.commands.environment.environment_problem", lambda *_: None)
    answer = {
        "findings": [{"name": "n", "claim": "c", "source": "s", "measured": {"x": 0.5}, "held": True}],
        "similarities": [{"kind": "k", "similarity": [0.5, 0.25, 0.75]}],
        "margins": [{"gate": "none", "margin": [0.125, 0.0, 0.25]}],
    }
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint('loading')\n"
        f"print(json.dumps({answer!r} | {{'asked': sys.argv[2:]}}))\n"
    )
    python.chmod(0o755)
    return python


def test_the_study_of_text_asks_the_rollout_environment_and_keeps_its_answer(tmp_path, interpreter, capsys):
    write(tmp_path, [("one", "two"), ("three", "four"), ("five", "six")])
    overrides = [f"cluster.rollout.python={interpreter}", "encoder.batch_size=8"]
    command = ["lab", "text", str(tmp_path), "--prompts", "2", "--output", str(tmp_path), *overrides]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "held    n: c (s)" in shown
    assert "0.125 [0.000, 0.250]" in shown
    kept = json.loads((tmp_path / "text.json").read_text())
    assert kept["command"] == "nemo-sspo lab text DATA --prompts 2 --seed 0 encoder.batch_size=8"
    program, data, count, seed, settings = kept["asked"]
    assert (program, data, count, seed) == ("nemo_sspo.lab.text.study", str(tmp_path), "2", "0")
    assert json.loads(settings)["batch_size"] == 8
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == kept


def test_text_that_is_not_there_is_one_line(tmp_path, capsys):
    assert cli.main(["lab", "text", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "arena_hard_v0.1_answers_gpt-4-0314.jsonl: cannot be read" in line


def test_what_a_folder_of_language_games_holds(tmp_path, capsys):
    assert cli.main(["lab", "language", "--show", "--output", str(PUBLISHED.with_name("language"))]) == 0
    out = capsys.readouterr().out
    assert "the gate keeps wordings apart" in out
    (tmp_path / "seed-00.jsonl").write_text("{}\n")
    assert cli.main(["lab", "language", "--show", "--output", str(tmp_path)]) == 0
    assert "two seeds or more" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", ["3-1", "a", "-1"])
def test_seeds_that_are_none_are_one_line(tmp_path, capsys, seeds):
    assert cli.main(["lab", "language", f"--seeds={seeds}", "--output", str(tmp_path / "new")]) == 2
    assert "give FIRST-LAST, for example 0-15" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
