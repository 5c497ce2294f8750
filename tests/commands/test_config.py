"""`nemo-sspo config`: all settings, or those that are named, and the choices of each group."""

import json
import os
import pty
import subprocess
import sys

import pytest

from nemo_sspo import cli
from nemo_sspo.config.choices import choice_meanings, groups


def shown(capsys: pytest.CaptureFixture[str], *given: str) -> list[str]:
    assert cli.main(["config", *given]) == 0
    return capsys.readouterr().out.splitlines()


def settings(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines if ": " in line and not line.startswith((" ", "#"))]


def test_a_section_shows_its_settings_alone(capsys):
    lines = shown(capsys, "train.", "experiment=quickstart", "train.learning_rate=2e-3")
    keys = settings(lines)
    assert len(keys) > 20
    assert all(key.startswith("train.") for key in keys)  # not cluster.train.*
    assert "train.learning_rate: 0.002" in lines
    assert settings(shown(capsys, "momentum")) == ["train.sgd_momentum"]
    assert cli.main(["config", "train.", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(keys)


def test_a_group_lists_its_choices_with_what_each_is(capsys):
    lines = shown(capsys, "gate")
    assert lines[lines.index("gate=power") + 1] == "    Weight (1 - S)^exponent."
    assert settings(lines) == ["gate.kind", "gate.form"]
    assert settings(shown(capsys, "gate", "gate=power")) == ["gate.kind", "gate.form", "gate.exponent"]
    assert [line for line in shown(capsys, "experiment") if line.startswith("experiment=")]


def test_all_settings_name_the_choices_of_every_group(capsys):
    lines = shown(capsys)
    for group in groups():
        (line,) = [line for line in lines if line.startswith(f"# {group}=NAME takes one of ")]
        assert line.endswith(", ".join(choice_meanings(group)))
    assert lines.index(next(line for line in lines if line.startswith("# loss="))) < lines.index("loss.kind: sppo")


def test_values_that_can_be_chosen_are_listed(capsys):
    lines = shown(capsys, "train.")
    assert lines[lines.index("train.optimizer: adamw") + 1].endswith("One of adamw, sgd.")
    assert lines[lines.index("train.peft: null") + 1].endswith("One of lora, null.")


def test_a_choice_of_ones_own_is_listed_too(capsys, tmp_path):
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "mine.yaml").write_text("# Falls\n# gently.\nkind: linear\n")
    lines = shown(capsys, "gate", "--config-dir", str(tmp_path))
    assert lines[lines.index("gate=mine") + 1] == "    Falls gently."


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("trian.", "did you mean train?"),
        ("gaet", "did you mean gate?"),
        ("train.learning_rat3", "did you mean train.learning_rate?"),
        ("quickstart", "written experiment=quickstart"),
    ],
)
def test_a_name_of_nothing_is_one_line(capsys, name, advice):
    assert cli.main(["config", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert advice in line


def test_a_terminal_of_80_columns_breaks_no_line_itself():
    controller, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb"}
    command = [sys.executable, "-m", "nemo_sspo.cli", "config", "experiment=quickstart"]
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.DEVNULL, env=environment):
        os.close(terminal)
        text = b""
        while chunk := _read(controller):
            text += chunk
    lines = text.decode().splitlines()
    assert len(lines) > 100
    assert max(map(len, lines)) <= 80


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_setting_that_is_a_mapping_is_shown_once(capsys):
    """`cluster.options`, say: a mapping has no hash."""
    assert settings(shown(capsys, "cluster=slurm_pyxis", "cluster.", "options")).count("cluster.options") == 1
