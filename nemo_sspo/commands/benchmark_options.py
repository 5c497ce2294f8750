"""What every ``nemo-sspo benchmark`` command takes and prints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout

if TYPE_CHECKING:
    from nemo_sspo.launch.benchmark import Examinee


def add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that every benchmark takes."""
    parser.add_argument("run", type=Path, help="directory of a run; or of a model, and settings as key=value")
    parser.add_argument("--iteration", type=int, help="whose policy, 0 the base's (default: the result of the run)")
    parser.add_argument("--output", type=Path, help="directory to make (default: in the run's, benchmarks/iter_T/NAME)")
    parser.add_argument("--python", help="interpreter with vLLM (default: the run's rollout environment)")


def output_of(given: Path | None, asked: "Examinee", name: str) -> Path:
    """Where the command publishes."""
    return given or RunLayout(asked.root).benchmark(name, asked.iteration)


def say(console: Console, text: str) -> None:
    """A line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
