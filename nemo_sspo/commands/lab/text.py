"""``nemo-sspo lab text``: real answers under the real encoder, and what gates make of an oracle's margins."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_sspo.commands.environment import ask
from nemo_sspo.commands.lab.show import show_findings
from nemo_sspo.commands.stored_run import given_experiment
from nemo_sspo.commands.terminal import print_wide, table_of
from nemo_sspo.errors import UserError

_RESULTS = "text.json"
_PROGRAM = "nemo_sspo.lab.text.study"
_SECONDS = 7200


def register(studies: "argparse._SubParsersAction[Any]") -> None:
    """Add the study."""
    text = "study the encoder's window and what gates make of margins, on real answers (half an hour on a CPU)"
    sub = studies.add_parser("text", help=text, description=f"{text}.")
    sub.add_argument("data", type=Path, help="folder with arena_hard_v0.1_questions.jsonl and _answers_*.jsonl")
    sub.add_argument("overrides", nargs="*", help="settings: encoder.path=..., cluster.rollout.python=...")
    sub.add_argument("--prompts", type=int, help="prompts, spread evenly over the file's (all)")
    sub.add_argument(
        "--seed", type=int, default=0, help="of the words that copies lack, and of intervals (%(default)s)"
    )
    sub.add_argument("--json", action="store_true", help="print everything as JSON")
    sub.add_argument("--output", type=Path, metavar="FOLDER", help=f"folder in which to write {_RESULTS}")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.set_defaults(command=text_study)


def text_study(options: argparse.Namespace) -> int:
    """Check the answers here, measure in the rollout environment, print it, and keep it."""
    from nemo_sspo.lab.results import Finding, to_json
    from nemo_sspo.lab.text.answers import prompts_with_answers
    from nemo_sspo.launch.run_directory import write_atomically

    if options.prompts is not None and options.prompts < 2:
        raise UserError(f"--prompts {options.prompts}: give 2 or more")
    if options.output is not None and not options.output.is_dir():
        raise UserError(f"--output {options.output}: no such folder")
    experiment = given_experiment(["experiment=quickstart", *options.overrides], options.config_dir)
    count = len(prompts_with_answers(options.data, options.prompts))
    if not options.json:
        print(f"encodes the answers to {count} prompts and pairs made of them, twice (minutes) …", flush=True)
    arguments = [str(options.data), str(count), str(options.seed), experiment.encoder.model_dump_json()]
    found = ask("rollout", experiment.cluster.rollout, _PROGRAM, arguments, "lab text", _SECONDS)
    command = f"nemo-sspo lab text DATA --prompts {count} --seed {options.seed}"
    kept = [override for override in options.overrides if not override.startswith("cluster.")]  # paths of this machine
    text = to_json({"command": " ".join([command, *kept])} | found)
    if options.output is not None:
        write_atomically(options.output / _RESULTS, text)
    if options.json:
        print(text, end="")
        return 0
    console = Console()
    show_findings(console, [Finding(**finding) for finding in found["findings"]])
    _show_table(console, found["similarities"])
    _show_table(console, found["margins"])
    return 0


def _show_table(console: Console, rows: list[dict[str, Any]]) -> None:
    print_wide(table_of(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows]), console)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        mean, low, high = value
        return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    return str(value)
