"""Rollouts in and pairs out from the command line."""

import json
import shlex
from pathlib import Path

import pytest

from nemo_sspo import cli


def write(path: Path, *records: dict) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


RECORDS = [{"prompt": f"question {n}", "chosen": "yes", "rejected": "no"} for n in range(30)]


def test_import_publishes_the_rollouts_and_the_run_it_names_goes_on(arguments, capsys):
    file = write(Path("answers of mine.jsonl"), *RECORDS)
    given = [argument for argument in arguments if not argument.startswith("prompts=")]
    assert cli.main(["import-rollouts", str(file), *given]) == 0
    shown = capsys.readouterr().out
    assert shown.count("done   ") == 2
    published = {path.parent.relative_to("runs/quickstart").as_posix() for path in Path("runs").rglob("manifest.json")}
    assert published == {"prompts", "iter_1/rollout/shard_00000"}
    experiment = json.loads(Path("runs/quickstart/experiment.json").read_text())
    assert experiment["rollout"]["source"] == experiment["prompts"] == str(file)
    assert experiment["iterations"] == 1

    command = shlex.split(shown.strip().splitlines()[-1])
    assert command[:2] == ["nemo-sspo", "run"]
    assert cli.main(command[1:]) == 0
    assert capsys.readouterr().out.count("done   ") == 11


def test_a_bad_record_is_one_line_and_nothing_is_published(arguments, capsys):
    file = write(Path("a.jsonl"), *RECORDS, {"prompt": "q", "chosen": "yes", "rejected": " "})
    assert cli.main(["import-rollouts", str(file), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: a.jsonl line 31: `rejected` is empty; remove the record or give it text"
    assert not Path("runs").exists()


@pytest.mark.parametrize("line", [["absent.jsonl", "experiment=quickstart"], ["experiment=quickstart", "a.jsonl"]])
def test_a_file_to_import_is_there_and_stands_first(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import-rollouts", *line]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error == f"error: {line[0]}: no such file; import-rollouts takes the file first, then overrides"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["runs/none", "--output", "out"], "no iteration of a run with pairs"),
        (["runs/none", "seed=1", "--output", "out"], "takes one run directory, and got 'seed=1' besides"),
        (["runs/none", "--format", "csv", "--output", "out"], "invalid choice: 'csv'"),
        (["runs/none"], "required: --output"),
    ],
)
def test_mistakes_of_an_export_are_one_line(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(["export-pairs", *line])
    except SystemExit as end:
        code = end.code
    (error,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert message in error
