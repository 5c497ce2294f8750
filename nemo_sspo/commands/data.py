"""``import-rollouts`` and ``export-pairs``: preference data from elsewhere, and for elsewhere."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.words import counted

_IMPORTING = ("prepare_prompts", "rollout")


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    text = "take prompts with their responses from a file, as the rollouts of a run's first iteration"
    importing = commands.add_parser("import-rollouts", help=text, description=f"{text}.")
    importing.add_argument("file", help="rows with prompt and responses, or chosen and rejected")
    importing.add_argument("overrides", nargs="*", help="experiment=llama3-8b name=mine policy=... oracle.path=...")
    importing.add_argument("--config-dir", type=Path, help="directory with YAML files of your own")
    importing.set_defaults(command=import_rollouts)

    text = "write an iteration's training pairs as a preference data set"
    exporting = commands.add_parser("export-pairs", help=text, description=f"{text}.")
    exporting.add_argument("run", type=Path, help="directory of a run")
    exporting.add_argument("--iteration", type=int, help="whose pairs; the last that has any")
    exporting.add_argument("--format", choices=("trl", "hf", "sppo"), default="trl", help="columns of the data set")
    exporting.add_argument(
        "--unfinished", choices=("keep", "drop"), default="keep", help="pairs with a response that was cut; keep"
    )
    exporting.add_argument("--output", type=Path, required=True, help="directory to make")
    exporting.set_defaults(command=write_pairs, overrides=[])


def import_rollouts(options: argparse.Namespace) -> int:
    """Check the file, prepare its prompts and publish its responses; what a run would do first, and no more."""
    from nemo_sspo.artifacts.sources.records import is_on_disk
    from nemo_sspo.commands.driving import drive
    from nemo_sspo.commands.plan import show_notes
    from nemo_sspo.launch.machine import local_cluster
    from nemo_sspo.launch.plan import plan
    from nemo_sspo.launch.preflight import problems

    if is_on_disk(options.file) and not Path(options.file).exists():
        raise UserError(f"{options.file}: no such file; import-rollouts takes the file first, then overrides")
    overrides = importing_overrides(options.file, options.overrides)
    experiment = load_experiment(overrides, options.config_dir)
    local_cluster(experiment)
    if found := problems(experiment):
        raise UserError(found[0])
    show_notes(experiment)
    console = Console()
    steps = [step for step in plan(experiment) if step.stage in _IMPORTING and step.iteration <= 1]
    if code := drive(experiment, console, steps):
        return code
    console.print("the run goes on with:")
    more = ["--config-dir", str(options.config_dir)] if options.config_dir else []
    command = shlex.join(["nemo-sspo", "run", *overrides, *more])
    console.print(command, markup=False, highlight=False, soft_wrap=True)
    return 0


def importing_overrides(file: str, given: Sequence[str]) -> list[str]:
    """The overrides that make a run take its first responses from a file.

    Unless they say otherwise, its prompts are the file's too and the run has one iteration: a second one would sample.
    """
    keys = {override.partition("=")[0] for override in given}
    quoted = '"' + file.replace("\\", "\\\\").replace('"', '\\"') + '"'
    defaults = {"prompts": quoted, "iterations": "1"}
    return [
        *given,
        f"rollout.source={quoted}",
        *(f"{key}={value}" for key, value in defaults.items() if key not in keys),
    ]


def write_pairs(options: argparse.Namespace) -> int:
    """Write the data set and say where it is."""
    from nemo_sspo.report.preference_export import TRAIN, export_pairs

    if options.overrides:
        raise UserError(f"export-pairs takes one run directory, and got {options.overrides[0]!r} besides")
    exported = export_pairs(
        RunLayout(options.run), options.iteration, options.format, options.output, options.unfinished
    )
    print(f"{counted(exported.pairs, 'pair')}: {options.output / TRAIN}")
    if exported.unfinished and options.unfinished == "drop":
        print(f"left out: {counted(exported.unfinished, 'pair')} with an unfinished response")
    elif exported.unfinished:
        print(
            f"note: {counted(exported.unfinished, 'pair')} with a response that was cut at the longest length "
            "(finish_reason_* is length), and trainers put an end of turn behind it; --unfinished drop leaves these "
            "pairs out",
            file=sys.stderr,
        )
    return 0
