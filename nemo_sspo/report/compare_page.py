"""The page of several runs."""

from nemo_sspo.report.blocks import Block, Cell, Findings, Missing, Note, Page, PlotGrid, Section, Table
from nemo_sspo.report.facts.budget import Budget
from nemo_sspo.report.facts.comparison import Comparison, verdicts
from nemo_sspo.report.facts.run_facts import RunFacts
from nemo_sspo.report.figures.comparison import advantage_plot, fact_plots, seconds_plot, sweep_plot, win_rate_plots

_UNKNOWN = "-"


def compare_page(comparison: Comparison) -> Page:
    """Put the page together."""
    moment = max(run.gathered_at for run in comparison.runs)
    unfinished = [label for label, run in zip(comparison.labels, comparison.runs, strict=True) if not run.finished]
    return Page(
        title=" · ".join(comparison.labels),
        eyebrow="nemo-sspo comparison",
        subtitle=f"{len(comparison.runs)} runs; the baseline is {comparison.labels[0]}",
        status=(f"Not finished: {', '.join(unfinished)}. " if unfinished else "All runs are finished. ")
        + f"Drawn {moment[:10]} at {moment[11:16]} UTC.",
        sections=(
            Section("results", "Results", _results(comparison)),
            Section("win-rates", "Win rates", _win_rates(comparison)),
            Section("facts", "Margins, lengths, collapse", _facts(comparison)),
            Section("time", "Time", _time(comparison)),
            Section("differences", "Differences of configuration", _differences(comparison)),
        ),
        remarks=tuple(
            f"{label}: could not be read: {name}"
            for label, run in zip(comparison.labels, comparison.runs, strict=True)
            for name in run.unreadable
        ),
    )


def _results(comparison: Comparison) -> list[Block]:
    results = [_result(run, spent) for run, spent in zip(comparison.runs, comparison.budgets, strict=True)]
    headings = [heading for heading in results[0] if any(result[heading] != _UNKNOWN for result in results)]
    rows = [
        (label, *(result[heading] for heading in headings))
        for label, result in zip(comparison.labels, results, strict=True)
    ]
    said: list[Block] = [Findings(found)] if (found := verdicts(comparison)) else []
    note = (
        "Win rates, tokens and loss are of the last iteration that has them; prompts, responses, pairs and steps are "
        "what a run has spent by the last that is evaluated."
    )
    return [*said, Table(("run", *headings), rows, note=note)]


def _result(run: RunFacts, spent: Budget) -> dict[str, Cell]:
    """A run's line of the table, by heading; what no run knows is left out of it."""
    last = run.evaluations[-1] if run.evaluations else None
    curve = run.curves[-1] if run.curves else None
    tokens = last.tokens.get("new") if last else None
    hours = sum(cost.gpu_hours for cost in run.costs)
    best = last.best_of_n if last else None
    return {
        "iterations": f"{len(run.evaluations)} of {run.iterations_planned}",
        "prompts": _count(spent.prompts),
        "responses": _count(spent.responses),
        "pairs": _count(spent.pairs),
        "steps": _count(spent.steps),
        "win rate vs base": str(last.wins.get("base", _UNKNOWN)) if last else _UNKNOWN,
        "at equal length": str(last.at_equal_length or _UNKNOWN) if last else _UNKNOWN,
        "best of n": f"{best.win} (n = {best.n})" if best else _UNKNOWN,
        "vs previous": str(last.wins.get("previous", _UNKNOWN)) if last else _UNKNOWN,
        "tokens": _UNKNOWN if tokens is None else f"{tokens:.1f}",
        "loss": f"{curve.first('loss'):.4g} → {curve.last('loss'):.4g}" if curve else _UNKNOWN,
        "seconds": f"{sum(cost.seconds for cost in run.costs):,.0f}",
        "GPU-hours": f"{hours:.2f}" if hours else _UNKNOWN,
        "warnings": sum(finding.state != "good" for finding in run.findings),
    }


def _count(count: int | None) -> str:
    return f"{count:,}" if count else _UNKNOWN


def _win_rates(comparison: Comparison) -> list[Block]:
    plots = win_rate_plots(comparison)
    if not plots:
        return [Missing("No run has been evaluated yet.")]
    if (swept := sweep_plot(comparison)) is not None:
        plots.append(swept)
    blocks: list[Block] = [PlotGrid(plots)]
    if not comparison.same_base:
        blocks.insert(
            0,
            Note(
                "The runs start from different policies or are judged by different oracles: their win "
                "rates cannot be compared."
            ),
        )
    elif comparison.advantages:
        blocks.append(advantage_plot(comparison))
    else:
        blocks.append(Missing("The runs share no evaluated held-out prompt: no paired difference can be given."))
    return blocks


def _facts(comparison: Comparison) -> list[Block]:
    plots = fact_plots(comparison)
    return [PlotGrid(plots)] if plots else [Missing("No run has built pairs yet.")]


def _time(comparison: Comparison) -> list[Block]:
    if not any(run.costs for run in comparison.runs):
        return [Missing("No step is published yet.")]
    return [seconds_plot(comparison)]


def _differences(comparison: Comparison) -> list[Block]:
    if not comparison.differences:
        return [Note("Every setting is the same in all runs.")]
    rows = [(key, *values) for key, values in comparison.differences]
    return [Table(("setting", *comparison.labels), rows)]
