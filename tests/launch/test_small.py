"""experiment=small: a model and prompts of one's own on a CPU, from the command line to the plan."""

from pathlib import Path

from nemo_sspo import cli
from tests.launch import ready_run

MODELS = [given for given in ready_run.OVERRIDES if not given.startswith(("prompts=", "data."))]


def test_it_plans_and_its_dry_run_finds_everything_in_order(place, capsys):
    ready_run.write_prompts(Path("mine.jsonl"), 100)
    given = ["experiment=small", *MODELS, "prompts=mine.jsonl"]
    assert cli.main(["run", *given, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "every input is in order; runs/small would hold the run" in shown.out
    assert "13 steps to run, on this machine without a time limit" in shown.out
    assert "error" not in shown.err
    assert cli.main(["plan", *given, "iterations=2"]) == 0
    assert "23 steps to run" in capsys.readouterr().out


def test_too_few_prompts_for_it_are_told_with_the_settings_to_lower(place, capsys):
    ready_run.write_prompts(Path("mine.jsonl"), 32)
    assert cli.main(["run", "experiment=small", *MODELS, "prompts=mine.jsonl", "--dry-run"]) == 2
    assert "32 prompts are too few for data.held_out_count=32 and iterations=1" in capsys.readouterr().err
