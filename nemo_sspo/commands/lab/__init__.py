"""``nemo-sspo lab``: what the papers claim, put to the test where the truth is known."""

import argparse
from typing import Any

from nemo_sspo.commands.lab import game, language


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command with its studies."""
    text = "put what the papers claim to the test where the truth is known"
    sub = commands.add_parser("lab", help=text, description=f"{text}.")
    studies = sub.add_subparsers(required=True, metavar="study")
    for study in (game, language):
        study.register(studies)
