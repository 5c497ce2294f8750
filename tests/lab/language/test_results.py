"""Results on disk: a study goes on, a half-written run is made again, two studies do not mix."""

import json
from pathlib import Path

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.lab.language.results import Results, Run, SeedFile

SETTINGS = {"size": 1}
RUN = Run("gate", 6.0, 3, [{"true_win_rate": 0.123456789}, {"true_win_rate": 0.6}])


def test_a_run_is_kept_and_not_played_again(tmp_path: Path) -> None:
    SeedFile(tmp_path, 3, SETTINGS).add(RUN)
    assert SeedFile(tmp_path, 3, SETTINGS).done == {("gate", 6.0)}
    found = Results.read(tmp_path)
    assert found.values("gate", 6.0, "true_win_rate") == {3: 0.6}
    assert found.values("gate", 6.0, "true_win_rate", iteration=0) == {3: 0.12346}
    assert found.seeds("gate", 6.0) == [3]
    assert found.seeds("gate", 2.0) == []


def test_a_half_written_run_is_dropped(tmp_path: Path) -> None:
    SeedFile(tmp_path, 3, SETTINGS).add(RUN)
    with (tmp_path / "seed-03.jsonl").open("a") as file:
        file.write('{"arm": "sppo", "dial"')
    file = SeedFile(tmp_path, 3, SETTINGS)
    assert file.done == {("gate", 6.0)}
    file.add(Run("sppo", 6.0, 3, [{"true_win_rate": 0.5}]))
    assert [run.arm for run in Results.read(tmp_path).runs] == ["gate", "sppo"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    SeedFile(tmp_path, 3, SETTINGS).add(RUN)
    with pytest.raises(UserError, match=r"seed-03\.jsonl: was made with other settings"):
        SeedFile(tmp_path, 3, {"size": 2})
    (tmp_path / "seed-04.jsonl").write_text(json.dumps({"size": 2}) + "\n")
    with pytest.raises(UserError, match=r"seed-04\.jsonl: was made with other settings than seed-03\.jsonl"):
        Results.read(tmp_path)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no seed-"):
        Results.read(tmp_path)
