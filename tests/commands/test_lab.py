"""``nemo-sspo lab``: what it prints and keeps."""

import json
from pathlib import Path

import pytest

from nemo_sspo import cli

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
