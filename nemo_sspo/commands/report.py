"""``nemo-sspo report | compare``: what came of a run, or of several, as one HTML page each."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.terminal import say
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.words import counted

if TYPE_CHECKING:
    from nemo_sspo.report.facts.record import RunRecord
    from nemo_sspo.report.facts.run_facts import RunFacts
    from nemo_sspo.report.facts.verdict import Finding


def register(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the parser."""
    sub = commands.add_parser("report", help="draw a run as one HTML page", description="draw a run as one HTML page.")
    sub.add_argument("overrides", nargs="*", metavar="run", help="a run's directory, or the overrides it was run with")
    sub.add_argument("--config-dir", type=Path, help="directory with YAML files of your own, laid out as conf/ is")
    sub.add_argument("--output", type=Path, help="the page (default: report.html in the run's directory)")
    sub.add_argument("--prompts", type=int, metavar="N", help="prompts of each iteration to show (default: 100)")
    sub.set_defaults(command=show_report)
    sub = commands.add_parser("compare", help="draw several runs side by side", description="draw several runs.")
    sub.add_argument(
        "overrides", nargs="*", metavar="run", help="directories of two runs or more; the first is the baseline"
    )
    sub.add_argument("--output", type=Path, default=Path("compare.html"), help="the page (default: compare.html)")
    sub.set_defaults(command=show_comparison)


def show_report(options: argparse.Namespace) -> int:
    """Draw a run, finished or not, and print where the page lies."""
    if options.prompts is not None and options.prompts < 0:
        raise UserError(f"--prompts {options.prompts}: give 0 or more")
    layout = run_layout(options.overrides, options.config_dir)
    _print_path(Console(), draw_run(layout, options.output, options.prompts))
    return 0


def show_comparison(options: argparse.Namespace) -> int:
    """Draw several runs and print where the page lies."""
    from nemo_sspo.report.compare_page import compare_page
    from nemo_sspo.report.facts.comparison import compare
    from nemo_sspo.report.render import write_page

    if len(options.overrides) < 2:
        raise UserError("compare: give the directories of two runs or more, the baseline first")
    records = [run_record(RunLayout(Path(given))) for given in options.overrides]
    _print_path(Console(), write_page(compare_page(compare(records)), _writable(options.output)))
    return 0


def run_layout(given: Sequence[str], config_dir: Path | None) -> RunLayout:
    """A run given as a directory or by its overrides.

    Raises:
        UserError: nothing is given.
    """
    if not given:
        raise UserError("give the directory of a run, as in runs/<name>, or the overrides it was run with")
    if len(given) == 1 and "=" not in given[0]:
        return RunLayout(Path(given[0]))
    return RunLayout(load_experiment(given, config_dir).run_dir)


def draw_run(layout: RunLayout, output: Path | None = None, prompts: int | None = None) -> Path:
    """Draw a run's page; returns its path.

    Raises:
        UserError: there is no run, or the page cannot be written there.
    """
    from nemo_sspo.report.render import write_page
    from nemo_sspo.report.run_page import run_page

    return write_page(run_page(gathered(layout, prompts)), _writable(output or layout.report))


def gathered(layout: RunLayout, prompts: int | None = None) -> "RunFacts":
    """The facts of a run, with so many prompts of each iteration.

    Raises:
        UserError: there is no run.
    """
    from nemo_sspo.report.facts.run_facts import SAMPLE_PROMPTS, gather

    return gather(run_record(layout), sample_count=SAMPLE_PROMPTS if prompts is None else prompts)


def show_warnings(console: Console, layout: RunLayout) -> None:
    """What the page warns of, as the page says it. A failed step is not told again: `status` has said so."""
    from nemo_sspo.launch.run_directory import stored_experiment
    from nemo_sspo.report.facts.record import read_run
    from nemo_sspo.report.facts.run_facts import evidence
    from nemo_sspo.report.facts.verdict import findings

    with suppress(UserError):  # without its settings, or with damaged ones, a run has no page either
        if stored_experiment(layout) is not None:
            show_findings(console, findings(evidence(read_run(layout))))


def show_findings(console: Console, found: "Sequence[Finding]") -> None:
    """Warnings and failures with the rule of each; one line where there are none."""
    grave = [finding for finding in found if finding.state != "good"]
    for finding in grave:
        mark, style = (("warning", "bold yellow"), ("failed", "bold red"))[finding.state == "bad"]
        say(console, f"{mark}: {finding.text}", style, hanging=4)
        say(console, f"Rule: {finding.rule}.", "dim", indent=4)
    if found and not grave:
        say(console, f"no warnings: {counted(len(found), 'rule')} looked at", hanging=4)


def draw_at_the_end(console: Console, layout: RunLayout) -> None:
    """Draw the page of a run that has just ended. The run's result stands, whatever happens here."""
    try:
        _print_path(console, draw_run(layout))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        console.print(
            f"the report could not be drawn ({reason}); `nemo-sspo report {layout.root}` tries again",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def run_record(layout: RunLayout) -> "RunRecord":
    """Everything that a run has published, its plan and what failed in it.

    Raises:
        UserError: there is no run.
    """
    from nemo_sspo.launch.plan import plan
    from nemo_sspo.launch.run_directory import stored_experiment
    from nemo_sspo.report.facts.record import read_run

    experiment = stored_experiment(layout)
    return read_run(layout, plan(experiment) if experiment else (), failures(layout))


def failures(layout: RunLayout) -> dict[str, str]:
    """Steps of a run that failed, and why; none of a run that was moved or that another version has written.

    Raises:
        UserError: there is no run.
    """
    from nemo_sspo.commands.status import failed_steps
    from nemo_sspo.launch.run_directory import stored_experiment

    experiment = stored_experiment(layout)
    here = experiment is not None and experiment.run_dir.resolve() == layout.root.resolve()
    return failed_steps(experiment) if experiment is not None and here else {}


def _writable(path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the path of a file, like {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no directory {path.parent}; make it first")
    return path


def _print_path(console: Console, path: Path) -> None:
    console.print(f"{path}", markup=False, highlight=False, soft_wrap=True)
