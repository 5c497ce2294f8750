"""`nemo-sspo doctor`: a table or a record, exit codes by verdict, and nothing heavy in its own process."""

import json
import subprocess
import sys

import pytest

from nemo_sspo import cli
from nemo_sspo.doctor import environments

FACTS = {"versions": {"python": "3.11.7", "torch": "2.13.0+cpu"}, "broken": {}, "cuda": None, "nccl": None, "gpus": []}


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """What both environments answer."""
    found = {"train": dict(FACTS), "rollout": dict(FACTS)}
    monkeypatch.setattr(environments, "look_at", lambda _: found)
    monkeypatch.setattr("nemo_sspo.visible_gpus.DEVICES", tmp_path)
    return found


def test_a_sound_machine(answers, capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "train environment" in shown
    assert "stand-in: CPU" in shown
    assert "passed" in shown.splitlines()[-1]
    assert not [line for line in shown.splitlines() if line.startswith("failed")]


def test_a_site_is_looked_at_from_its_login_node(answers, capsys, monkeypatch, tmp_path):
    """A run of the user's on a cluster: its images are elsewhere, and Slurm is not here."""
    monkeypatch.setattr("nemo_sspo.launch.slurm.commands.subprocess.run", absent)
    run = [
        "experiment=llama3-8b",
        "cluster=slurm_pyxis",
        f"runs_dir={tmp_path}",
        "policy=/m",
        "prompts=/p",
        "oracle.path=/o",
    ]
    assert cli.main(["doctor", *run]) == 2
    shown = capsys.readouterr().out
    assert "not run  Slurm" in shown
    assert "shared by all nodes" in shown


def absent(command, **_):
    raise FileNotFoundError(command[0])


def test_it_answers_before_an_environment_does(answers, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(environments, "look_at", lambda _: shown.append(capsys.readouterr().out) or answers)
    cli.main(["doctor"])
    assert "publishing" in shown[0]


def test_the_record_is_all_of_stdout(answers, capsys):
    answers["train"]["broken"] = {"torch": "ImportError: libcudart.so.12"}
    assert cli.main(["doctor", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["outcome"] == "failed"
    assert record["trial"] is None


def test_an_absent_environment_is_told_below_the_table(answers, capsys):
    answers["rollout"] = {"problem": "lacks vllm; give NEMO_SSPO_ROLLOUT_PYTHON another"}
    assert cli.main(["doctor"]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "not run rollout environment lacks vllm; give NEMO_SSPO_ROLLOUT_PYTHON another" in shown


def test_a_trial_that_cannot_start_is_one_line(answers, capsys, tmp_path):
    assert cli.main(["doctor", "--directory", "d"]) == 2
    assert capsys.readouterr().err.startswith("error: --directory is where --run works")
    place = ["--directory", str(tmp_path / "trial")]
    own = ["policy=of/mine", "oracle.path=of/mine"]  # not the quickstart's, which need not be built
    assert cli.main(["doctor", "--run", *place, *own, "prompts=absent.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("error: absent.jsonl")
    answers["train"] = answers["rollout"] = {"problem": "lacks torch"}
    assert cli.main(["doctor", "--run", *place]) == 2
    assert capsys.readouterr().err == "error: lacks torch\n"
    assert not (tmp_path / "trial").exists()


def test_it_imports_nothing_heavy():
    script = (
        "import sys; from nemo_sspo import cli; from nemo_sspo.doctor import environments; "
        "environments.look_at = lambda _: {'train': {'problem': 'x'}, 'rollout': {'problem': 'x'}}; "
        "cli.main(['doctor', '--json']); import nemo_sspo.doctor.trial_checks; "
        "print(sorted({'torch', 'transformers', 'vllm', 'megatron', 'nemo'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
