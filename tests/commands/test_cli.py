"""The command line: fast without torch, one line per mistake, exit codes that tell whose fault it is."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_sspo import __version__, cli
from tests import processor_time
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


def test_dry_run_is_quick_and_imports_nothing_heavy(arguments):
    """In processes of their own: two seconds where the imports that it needs take a sixth of one, on a busy machine."""
    script = (
        "import sys, time; from nemo_sspo import cli; code = cli.main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'vllm', 'megatron', 'nemo', 'numpy.random'} & set(sys.modules); "
        "print(time.process_time(), sorted(heavy - {'numpy.random'}), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "run", "--dry-run", *arguments]

    def seconds() -> float:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        taken, heavy = done.stderr.strip().splitlines()[-1].split(maxsplit=1)
        assert heavy == "[]"
        return float(taken)

    assert processor_time.least(seconds) < 12 * processor_time.of_imports("pydantic", "hydra", "rich")


def test_dry_run_shows_the_plan_and_writes_nothing(arguments, capsys):
    assert cli.main(["run", *arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "iter_1.train" in shown
    assert "every input is in order" in shown
    assert not Path("runs").exists()


def test_dry_run_lists_every_problem_and_run_the_first(arguments, capsys):
    wrong = [*arguments, "prompts=absent.jsonl", "policy=/no/such"]
    assert cli.main(["run", *wrong, "--dry-run"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in errors] == ["absent.jsonl", "policy=/no/such"]
    assert cli.main(["run", *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: absent.jsonl: no such file")
    assert line.endswith("(and 1 more: --dry-run lists them)")
    assert not Path("runs").exists()


def test_run_then_run_again_then_summary(arguments, capsys):
    assert cli.main(["run", *arguments]) == 0
    first = capsys.readouterr().out
    assert first.count("done   ") == 13
    assert "quickstart: 1 iteration" in first
    facts = json.loads(Path("runs/quickstart/summary.json").read_text())
    assert facts["iterations"][0]["seconds"]["train"] >= 0
    assert "Finished: all 13 steps are published" in Path("runs/quickstart/report.html").read_text()
    assert cli.main(["run", *arguments]) == 0
    assert "start  " not in capsys.readouterr().out
    assert cli.main(["summary", "runs/quickstart"]) == 0
    assert "quickstart: 1 iteration" in capsys.readouterr().out
    assert cli.main(["run", *arguments, "seed=1"]) == 2
    assert "was made with other settings (seed: 0 -> 1), which prepare_prompts" in capsys.readouterr().err
    assert cli.main(["status", "runs/quickstart"]) == 0
    assert capsys.readouterr().out.count("published") == 13


@pytest.mark.parametrize(("behaviour", "code"), [("refuse", 2), ("crash", 1)])
def test_exit_codes_tell_bad_input_from_a_failure(arguments, capsys, monkeypatch, behaviour, code):
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"prepare_prompts": behaviour}))
    assert cli.main(["run", *arguments]) == code
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "Traceback (most recent call last)" not in errors.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["run", "experiment=quickstart", "train.learning_rat=1"], "(did you mean train.learning_rate?)"),
        (["run", "--dry-rum"], "no such option: --dry-rum (did you mean --dry-run?)"),
        (["benchmark", "mt-bench", "x", "--questions", "y", "--max-tokns=3"], "did you mean --max-tokens?"),
        (["statsu", "runs/x"], "statsu: no such command (did you mean status?); one of run, config, plan"),
        (["benchmark", "mtbench"], "mtbench: no such name (did you mean mt-bench?)"),
        (["perform"], "perform: no such command; one of run, config"),
        ([], "required: command"),
        (["config", "experiment=nope"], "experiment=nope: no such choice"),
        (["plan", "experiment=llama3-8b"], "prompts is missing: give prompts=..."),
        (["summary", "no/such/run"], "no/such/run: no run lies there; give the directory of one"),
        (["summary"], "give the directory of a run"),
        (["report"], "give the directory of a run"),
        (["status"], "give the directory of a run"),
        (["resume"], "give the directory of a run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(line, message, capsys):
    try:
        code = cli.main(line)
    except SystemExit as end:
        code = end.code
    errors = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_overrides_may_stand_on_both_sides_of_an_option(capsys):
    assert cli.main(["plan", "experiment=quickstart", "--json", "iterations=1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 13


def test_config_prints_value_and_meaning(capsys):
    assert cli.main(["config", "experiment=quickstart", "train.learning_rate=2e-3"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"train\.learning_rate: 0\.002\n    Peak learning rate \(SPPO: 5e-7\)\.", shown)
    for line in (
        "train.pack_tokens: 8192  # may change in a started run; changes results by rounding at most",
        "train.keep_states: 2  # may change in a started run; changes no result",
        "policy: assets/toy/policy  # the content of the files counts too",
        "seed: 0",
    ):
        assert line in shown.splitlines(), line
    assert cli.main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "(required)"


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"nemo-sspo {__version__}\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left"),
            "the disk is full, or your quota on it: free some space and run again",
        ),
        (
            OSError(errno.EDQUOT, "Quota exceeded"),
            "the disk is full, or your quota on it: free some space and run again",
        ),
        (OSError(errno.EROFS, "Read-only", "runs/x"), "runs/x: Read-only; give another path, or ask its owner"),
    ],
)
def test_what_the_disk_refuses_is_one_line(arguments, capsys, monkeypatch, error, message):
    def full(*_):
        raise error

    monkeypatch.setattr("nemo_sspo.launch.run_directory.write_atomically", full)
    assert cli.main(["run", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m nemo_sspo.cli plan experiment=quickstart --json | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_interrupt_stops_the_steps_and_says_so(arguments, monkeypatch):
    """Ctrl-C in a process of its own, in the middle of a step."""
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"prepare_prompts": "hang"}))
    script = (
        # A test run in the background has SIGINT ignored, which children inherit.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys; from nemo_sspo import cli; from nemo_sspo.launch.checks import environments; "
        "from nemo_sspo.launch.local import runner; "
        "from tests.launch.fake_run import fake_command; runner.stage_command = fake_command; "
        "environments.STAGE_PACKAGES = {'train': (), 'rollout': ()}; sys.exit(cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_until(Path("runs/quickstart/progress/prepare_prompts.json").exists, 30)
    process.send_signal(2)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted: every step has been stopped; the same command continues from here\n"
