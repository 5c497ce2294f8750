"""What every ``nemo-sspo benchmark`` command takes and prints."""

import argparse
from pathlib import Path

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.errors import UserError


def add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that every benchmark takes."""
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--iteration", type=int, help="whose policy, 0 the base's (default: the result of the run)")
    parser.add_argument("--output", type=Path, help="directory to make (default: in the run's, benchmarks/iter_T/NAME)")
    parser.add_argument("--python", help="interpreter with vLLM (default: the run's rollout environment)")


def output_of(options: argparse.Namespace, iteration: int, name: str) -> Path:
    """Where the command publishes."""
    return options.output or RunLayout(options.run).benchmark(name, iteration)


def refuse_extra(options: argparse.Namespace) -> None:
    """A second positional argument is a mistake, and no override."""
    if options.overrides:
        raise UserError(f"benchmark takes one run directory, and got {options.overrides[0]!r} besides")


def say(console: Console, text: str) -> None:
    """A line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
