"""A long command says how far it is."""

import sys

from scripts.talk import how_far, main, requirements


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_it_speaks_while_a_command_is_silent(capsys):
    assert main(["trains the oracle", *python("import time; print('step 1'); time.sleep(0.5)")], every=0.1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trains the oracle …"
    assert len(lines) >= 4
    assert any(line.endswith(" s: step 1") for line in lines)
    assert lines[-1].startswith("  done after ")


def test_a_failure_shows_what_the_command_said(capsys):
    assert main(["installs", *python("print('no such package'); raise SystemExit(3)")]) == 3
    shown = capsys.readouterr()
    assert "no such package" in shown.err
    assert "failed after" in shown.out


def test_packages_are_counted(tmp_path):
    (tmp_path / "r.txt").write_text("# pins\n--prefer-binary\na==1\nb==2 \\\n    --hash=sha256:0\n\nc==3\n")
    assert requirements(["pip", "install", "-r", str(tmp_path / "r.txt")]) == 3
    assert requirements(["pip", "install", "a"]) == 0
    said = ["Collecting a==1 (from -r r.txt)", "  Downloading a.whl (1 kB)", "Collecting b==2 (from -r r.txt)"]
    assert how_far(said, 3) == "2 of 3 packages fetched or found"
    assert how_far([*said, "Installing collected packages: a, b, c"], 3).endswith("is being installed")
    assert how_far([], 0) == "under way"
