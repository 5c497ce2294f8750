"""``nemo-sspo lab language``: self-play of small policies on a task whose true preference is known."""

import argparse
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_sspo.commands.environment import refuse_elsewhere
from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.commands.terminal import print_wide, say, table_of
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.variables import of_process

_ENVIRONMENTS = "experiment=quickstart"
"""Whose environments play, unless settings name others."""


def register(studies: "argparse._SubParsersAction[Any]") -> None:
    """Add the study."""
    text = "train small policies by every method where the true preference is known (hours; it goes on where it was)"
    sub = studies.add_parser("language", help=text, description=f"{text}.")
    sub.add_argument("overrides", nargs="*", help="settings: cluster.rollout names the environment that plays")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of the results, a file a seed")
    sub.add_argument("--seeds", default="0-15", metavar="FIRST-LAST", help="worlds to play (%(default)s)")
    sub.add_argument("--small", action="store_true", help="tiny policies and four arms, to see that it works")
    sub.add_argument("--show", action="store_true", help="play nothing, print what the folder holds")
    sub.set_defaults(command=language)


def language(options: argparse.Namespace) -> int:
    """Play what is missing and show the outcomes."""
    from nemo_sspo.lab.language.results import Results

    if not options.show and (code := _play(options)):
        return code
    show(Results.read(options.output), Console())
    return 0


def _play(options: argparse.Namespace) -> int:
    first, last = _seeds(options.seeds)
    environment = given_experiment([_ENVIRONMENTS, *options.overrides], options.config_dir).cluster.rollout
    refuse_elsewhere("rollout", environment, "lab language")
    options.output.mkdir(parents=True, exist_ok=True)
    command = [environment.python, "-m", "nemo_sspo.lab.language", str(options.output), str(first), str(last)]
    if options.small:
        command.append("--small")
    return subprocess.run(command, env=of_process(environment.variables, gpus=()), check=False).returncode


def _seeds(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) < int(first):
        raise UserError(f"--seeds {text}: give FIRST-LAST, for example 0-15")
    return int(first), int(last or first)


def show(results: Any, console: Console) -> None:
    """Print every hypothesis with its verdict."""
    from nemo_sspo.lab.language.hypotheses import outcomes

    rows = [
        (
            outcome.verdict,
            outcome.hypothesis.claim,
            outcome.hypothesis.measure,
            outcome.paired.difference,
            f"{outcome.paired.wins}/{outcome.paired.seeds}",
            f"{outcome.adjusted_p:.3g}",
        )
        for outcome in outcomes(results)
    ]
    if not rows:
        say(console, "nothing to compare yet: two seeds or more, with both arms of a comparison")
        return
    print_wide(table_of(("", "claim", "measure", "difference", "seeds", "p (Holm)"), rows), console)
