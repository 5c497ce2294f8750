"""``nemo-sspo lab``: what the papers claim, put to the test where the truth is known."""

import argparse
from typing import Any

from nemo_sspo.commands.lab import game, language, page, text


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command with its studies."""
    about = "put what the papers claim to the test where the truth is known"
    sub = commands.add_parser("lab", help=about, description=f"{about}.")
    studies = sub.add_subparsers(required=True, metavar="study")
    for study in (game, language, text, page):
        study.register(studies)
