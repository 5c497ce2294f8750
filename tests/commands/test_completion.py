"""What a shell completes, asked of the shell itself."""

import os
import shutil
import subprocess
import sys

import pytest

from nemo_sspo import cli

COMMAND = [sys.executable, "-m", "nemo_sspo.cli", "completion"]
BASH = """
source {script}
COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}} COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_nemo_sspo 2>/dev/null  # compopt works in a completion alone
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
LINES = [
    ("nemo-sspo sta", ["status"]),
    ("nemo-sspo run --dr", ["--dry-run"]),
    ("nemo-sspo run train.learning_r", ["train.learning_rate="]),
    ("nemo-sspo plan gate=po", ["gate=power"]),
    ("nemo-sspo run model=mis", ["model=mistral-7b"]),
    ("nemo-sspo run method=snork", ["method=snorkel-dpo"]),
    ("nemo-sspo benchmark mt", ["mt-bench"]),
    ("nemo-sspo completion fi", ["fish"]),
    ("nemo-sspo cancel --conf", ["--config-dir"]),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run([*COMMAND, shell], capture_output=True, text=True, check=True).stdout
        (folder / shell).write_text(made)
    return folder


@pytest.mark.parametrize(("line", "found"), LINES)
def test_bash(scripts, line, found):
    words = line.replace("=", " = ")  # as its word breaks cut
    done = _run("bash", "-c", BASH.format(script=scripts / "bash", line=line, words=words))
    assert done.splitlines() == [word if word.endswith("=") else word.rpartition("=")[2] for word in found]


@pytest.mark.parametrize(("line", "found"), LINES)
@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(scripts, line, found):
    done = _run("fish", "--no-config", "-c", f"source {scripts / 'fish'}; complete -C {line!r}")
    assert [given.partition("\t")[0] for given in done.splitlines()] == found


@pytest.mark.parametrize(("line", "found"), LINES)
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh(scripts, line, found):
    """Its function alone, with what it adds printed: a line editor needs a terminal."""
    words = line.split(" ")
    script = (
        "compdef() {}; _files() {}; compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- $@; }; "
        f"source {scripts / 'zsh'}; words=({' '.join(words)}); CURRENT={len(words)}; _nemo_sspo"
    )
    given = _run("zsh", "-f", "-c", script).split()
    assert [word for word in given if word.startswith(words[-1])] == found


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "csh"])
    assert "invalid choice: 'csh'" in capsys.readouterr().err


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=os.environ | {"TERM": "dumb"})
    assert done.returncode == 0, done.stderr
    return done.stdout
