"""``nemo-sspo lab page``: the page and its figures from the studies' results."""

import argparse
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError


def register(studies: "argparse._SubParsersAction[Any]") -> None:
    """Add the command."""
    text = "write the page and its figures from the results of the three studies"
    sub = studies.add_parser("page", help=text, description=f"{text}.")
    sub.add_argument("--results", type=Path, default=Path("docs/lab"), metavar="FOLDER", help="(%(default)s)")
    sub.add_argument("--output", type=Path, default=Path("docs/lab.md"), metavar="FILE", help="(%(default)s)")
    sub.set_defaults(command=page, overrides=[])


def page(options: argparse.Namespace) -> int:
    """Write them."""
    from nemo_sspo.lab.page.page import write_page

    for name in ("game.json", "text.json"):
        if not (options.results / name).is_file():
            study = name.removesuffix(".json")
            raise UserError(f"{options.results / name}: not there; `nemo-sspo lab {study}` with --output makes it")
    if not options.results.is_relative_to(options.output.parent):
        raise UserError(f"--output {options.output}: the page links its figures: put it above {options.results}")
    for path in write_page(options.results, options.output):
        print(path)
    return 0
