"""``nemo-sspo plan --estimate``."""

import json
import subprocess
import sys

import pytest

from nemo_sspo import cli

GIVEN = ["plan", "experiment=llama3-8b", "prompts=owner/prompts", "--estimate", "--prompts-count", "20000"]


def test_a_login_node_estimates_without_what_takes_long_to_import():
    heavy = "{'torch', 'pyarrow', 'scipy'} & sys.modules.keys() or False"
    program = f"import sys; from nemo_sspo import cli; cli.main(sys.argv[1:]); print({heavy})"
    told = subprocess.run([sys.executable, "-c", program, *GIVEN], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "False"
    assert "An estimate, for H100 SXM 80 GB: published figures" in told
    assert "training step: " in told


def test_as_json_its_parts_add_up(capsys):
    assert cli.main([*GIVEN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 8_030_261_248
    held = found["memory"]
    kinds = ("weights", "gradients", "optimizer", "activations", "head", "workspaces", "allowance")
    assert held["total"] == sum(held[kind] for kind in kinds)
    hours = [phase["gpu_hours"] for phase in found["before"] + found["iterations"] * found["iteration"]]
    assert found["gpu_hours"] == pytest.approx(sum(hours))
    assert {phase["stage"] for phase in found["iteration"]} >= {"rollout", "score", "embed", "train", "evaluate"}
    assert all(layout["memory"]["total"] < 79.1 * 2**30 for layout in found["layouts"])
    largest = 2 * 128_256 * 4096 + 6 * 2 * 14_336 * 4096  # both ends of the vocabulary, and gate and up of six layers
    assert found["host_bytes"] == 4 * 2 * largest + 8 * 2**30


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--lengths", "180"], "--lengths 180: give the mean tokens of a prompt and of a response"),
        (["--lengths", "0,5"], "--lengths 0,5"),
        (["policy=somebody/model"], "policy=somebody/model: its sizes are not known here"),
        (["parallel.tensor=3"], "does not divide over parallel.tensor=3"),
        (["--speeds", "none.yaml"], "none.yaml"),
        (["train.pack_tokens=512"], "train.pack_tokens=512: a pair of mean length has 1040 tokens"),
    ],
)
def test_what_cannot_be_estimated_is_told(arguments, told, capsys):
    assert cli.main([*GIVEN, *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--lengths", "5,5"], ["--speeds", "x.yaml", "--prompts-count", "9"]])
def test_its_options_do_nothing_without_it(given, capsys):
    assert cli.main([*GIVEN[:3], *given]) == 2
    assert f"{', '.join(given[::2])}: nothing of a plan depends on that; add --estimate" in capsys.readouterr().err


def test_prompts_that_are_not_here_are_to_be_counted(capsys):
    assert cli.main(GIVEN[:4]) == 2
    assert "--prompts-count" in capsys.readouterr().err


def test_gpus_that_would_wait_are_told(capsys):
    """A 70B policy on 8 stages: 64 pairs make 8 microbatches a replica."""
    given = ["plan", "experiment=llama3-70b", "prompts=owner/prompts", "--estimate", "--prompts-count", "20000"]
    assert cli.main([*given, "parallel.pipeline=8", "parallel.data=8"]) == 0
    assert "GPUs wait " in capsys.readouterr().out
