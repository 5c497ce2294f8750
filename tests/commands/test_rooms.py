"""The command line imports the module of the command that is asked for, and no other."""

import argparse
import subprocess
import sys
from importlib import import_module

import pytest

from nemo_sspo.cli import ROOMS, rooms_of


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_registers_what_the_table_says(room: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    import_module(f"nemo_sspo.commands.{room}").register(commands)
    assert tuple(commands.choices) == ROOMS[room]


@pytest.mark.parametrize(
    ("arguments", "rooms"),
    [
        (["plan", "experiment=quickstart"], []),
        (["resume", "runs/a"], ["slurm"]),
        (["compare", "a", "b"], ["report"]),
        ([], [*ROOMS]),
        (["--help"], [*ROOMS]),
        (["completion", "bash"], [*ROOMS]),
        (["comparee"], [*ROOMS]),
    ],
)
def test_which_modules_a_command_needs(arguments: list[str], rooms: list[str]) -> None:
    assert list(rooms_of(arguments)) == rooms


def test_a_plan_imports_no_other_command() -> None:
    code = (
        "import sys; from nemo_sspo.cli import main; main(['plan', 'experiment=quickstart', '--graph']);"
        "print([name for name in sys.modules if name.startswith('nemo_sspo.commands.')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"nemo_sspo.commands.{room}'" in said for room in ROOMS if room != "report")
