"""The page of one run: which facts stand where, and what is said when they are missing."""

from collections import Counter

from nemo_sspo.report.blocks import (
    Block,
    Browser,
    Card,
    Cards,
    Findings,
    Legend,
    Missing,
    Note,
    Page,
    PlotGrid,
    Section,
    SideBySide,
    Table,
    Tiles,
)
from nemo_sspo.report.facts.evaluation import win_matrix
from nemo_sspo.report.facts.iteration import IterationFacts
from nemo_sspo.report.facts.run_facts import RunFacts
from nemo_sspo.report.figures.diagnosis import calibration_plot, diversity_plots, oracle_table
from nemo_sspo.report.figures.evaluation import collapse_plots, length_plot, matrix_plot, win_rate_plots
from nemo_sspo.report.figures.selection import selection_plot
from nemo_sspo.report.figures.supervision import around_the_gate, gate_panels, gate_plot, target_plot
from nemo_sspo.report.figures.timing import cost_table, iteration_cost_table, running_table, timeline_plot
from nemo_sspo.report.figures.training import identity_table, training_plots
from nemo_sspo.report.glossary import glossary_table
from nemo_sspo.report.headline import duration, headline
from nemo_sspo.report.iteration_rows import iteration_rows
from nemo_sspo.words import counted

_WHOSE_MARGINS = {
    "response pairs": (
        "Of all pairs of responses to a prompt, as in S-SPPO's Fig. 2: the margin is 2 |P - ½|, how sure the "
        "oracle is; the gate should leave little of it where two responses mean the same."
    ),
    "training pairs": (
        "Of the training pairs alone, since `diagnose` is not published: the margin is the difference of the two "
        "responses' win rates or targets."
    ),
}


def run_page(facts: RunFacts) -> Page:
    """Put the page of a run together."""
    return Page(
        title=facts.name,
        eyebrow="nemo-sspo report",
        subtitle=", ".join(f"{name} {value}" for name, value in facts.method.items()),
        status=_status(facts),
        sections=(
            Section("verdict", "Did it work?", _verdict(facts)),
            Section("win-rates", "Win rates", _win_rates(facts)),
            Section("iterations", "Iterations", _iterations(facts)),
            Section("training", "Training", _training(facts)),
            *([Section("selection", "Choice of the checkpoint", _selection(facts))] if facts.selects else []),
            Section("gate", "The semantic gate", _gate(facts)),
            Section("collapse", "Length and collapse", _collapse(facts)),
            Section("oracle", "The oracle", _oracle(facts)),
            Section("prompts", "Prompts and responses", _prompts(facts)),
            Section("time", "Time and cost", _time(facts)),
            Section("configuration", "Configuration and artifacts", _configuration(facts)),
            Section("glossary", "Glossary", [glossary_table()]),
        ),
        remarks=tuple(f"could not be read: {name}" for name in facts.unreadable),
    )


def _status(facts: RunFacts) -> str:
    if facts.finished and facts.stopped:
        return f"Finished: the run has {facts.stopped}. Drawn {_clock(facts.gathered_at)}."
    if facts.finished:
        return f"Finished: all {facts.planned} steps are published. Drawn {_clock(facts.gathered_at)}."
    if not facts.planned:
        unknown = "the configuration is of another version, so what is missing is not known"
        return f"{counted(facts.published, 'artifact')} published; {unknown}. Drawn {_clock(facts.gathered_at)}."
    if facts.failed:
        named = ", ".join(list(facts.failed)[:2]) + (f" and {more} more" if (more := len(facts.failed) - 2) > 0 else "")
        return (
            f"Failed: {named}; {facts.planned - len(facts.pending)} of {facts.planned} steps are published. Drawn "
            f"{_clock(facts.gathered_at)}."
        )
    return (
        f"Not finished: {facts.planned - len(facts.pending)} of {facts.planned} steps are published; next "
        f"{', '.join(facts.pending[:2])}. Drawn {_clock(facts.gathered_at)}."
    )


def _verdict(facts: RunFacts) -> list[Block]:
    nothing = Missing("Nothing can be said yet: no iteration has been trained or evaluated.")
    return [Tiles(headline(facts)), Findings(facts.findings) if facts.findings else nothing]


def _win_rates(facts: RunFacts) -> list[Block]:
    if not facts.evaluations:
        return [Missing("No checkpoint has been evaluated yet: `evaluate` follows the training of an iteration.")]
    return [PlotGrid([*win_rate_plots(facts.evaluations), matrix_plot(win_matrix(facts.evaluations))])]


def _iterations(facts: RunFacts) -> list[Block]:
    if not facts.iterations:
        return [Missing("No iteration has begun.")]
    cards = [_card(facts.of(iteration)) for iteration in facts.iterations]
    waiting = facts.iterations_planned - len(cards)
    is_one = waiting == 1
    left = f"{'is' if is_one else 'are'} left out: the run has {facts.stopped}"
    why = left if facts.stopped else f"{'has' if is_one else 'have'} not begun"
    note = [Note(f"{waiting} of {counted(facts.iterations_planned, 'iteration')} {why}.")] if waiting > 0 else []
    return [Cards(cards), *note]


def _card(each: IterationFacts) -> Card:
    rows = iteration_rows(each) | {"work": duration(sum(each.seconds.values()))}
    return Card(f"Iteration {each.iteration}", "evaluated" if each.evaluated else "under way", list(rows.items()))


def _training(facts: RunFacts) -> list[Block]:
    if not facts.curves:
        return [Missing("No optimizer step has been taken yet.")]
    blocks: list[Block] = [Note(f"Iteration {c.iteration} is being trained.") for c in facts.curves if not c.finished]
    blocks.append(Legend([f"iteration {curve.iteration}" for curve in facts.curves]))
    blocks.append(PlotGrid(training_plots(facts.curves)))
    if facts.identities:
        blocks.append(identity_table(facts.identities))
    return blocks


def _selection(facts: RunFacts) -> list[Block]:
    if not facts.selections:
        return [Missing("No checkpoint has been chosen yet: `select_model` follows the training of an iteration.")]
    return [
        Note(
            "The best of several estimates leans upwards: what the chosen checkpoint is worth, the win rates on the "
            "held-out prompts say, which no choice has seen."
        ),
        PlotGrid([selection_plot(each) for each in facts.selections.values()]),
    ]


def _gate(facts: RunFacts) -> list[Block]:
    if not facts.supervisions:
        return [Missing("No pairs are built yet.")]
    blocks: list[Block] = [Note(_WHOSE_MARGINS[view.what]) for view in facts.gate_views[-1:]]
    blocks += [PlotGrid(around_the_gate(view)) for view in facts.gate_views]
    for view in facts.gate_views[-1:]:
        blocks += [gate_plot(view), PlotGrid(gate_panels(view))]
    blocks.append(PlotGrid([target_plot(each, found) for each in facts.supervisions if (found := each.histograms)]))
    return blocks


def _collapse(facts: RunFacts) -> list[Block]:
    lengths = length_plot(facts.evaluations, facts.sampled, facts.supervisions)
    plots = [*([lengths] if lengths else []), *collapse_plots(facts.curves, facts.evaluations)]
    plots += diversity_plots(facts.diagnosed)
    if not plots:
        return [Missing("No responses are published yet.")]
    blocks: list[Block] = [PlotGrid(plots)]
    if without := [str(i) for i in facts.iterations if i not in facts.diagnosed]:
        blocks.append(Missing(f"Diversity of the responses of iteration {', '.join(without)}: not diagnosed yet."))
    rows = [(s.iteration, s.responses, s.duplicates, s.unfinished, s.empty) for s in facts.sampled]
    headings = ("iteration", "responses", "duplicates", "cut at the token limit", "empty")
    return [*blocks, Table(headings, rows, title="Responses sampled for training")]


def _oracle(facts: RunFacts) -> list[Block]:
    if facts.diagnosed:
        known = [each.calibration for each in facts.diagnosed.values() if each.calibration is not None]
        # The oracle does not change, so that every iteration carries the same measurement.
        plots = [calibration_plot(each) for each in known[:1]]
        note = Note("No labelled pairs are given, so its calibration is not measured.")
        return [oracle_table(facts.diagnosed), PlotGrid(plots) if plots else note]
    biased = [(s.iteration, f"{s.order_bias:.3f}") for s in facts.sampled if s.order_bias is not None]
    if not biased:
        return [Missing("Nothing has been scored yet.")]
    missing = Missing("Order flips, cycles and length bias are known once `diagnose` is published.")
    return [Table(("iteration", "order gap: mean |l_ij + l_ji| in logits"), biased), missing]


def _prompts(facts: RunFacts) -> list[Block]:
    blocks: list[Block] = []
    reasons = sorted({reason for counts in facts.dropped.values() for reason in counts})
    if reasons:
        rows = [(i, *(counts.get(reason, 0) for reason in reasons)) for i, counts in facts.dropped.items()]
        headings = ("iteration", *(reason.replace("_", " ") for reason in reasons))
        blocks.append(Table(headings, rows, title="Prompts without a pair, by reason"))
    elif facts.dropped:
        blocks.append(Note("Every prompt of every iteration has a training pair."))
    else:
        blocks.append(Missing("Which prompts are dropped is known once pairs are built."))
    if facts.held_out.prompts:
        blocks.append(_held_out(facts))
    if facts.samples:
        shown = Counter(sample.iteration for sample in facts.samples)
        totals = {sample.iteration: sample.prompts for sample in facts.sampled}
        parts = [f"{n} of {counted(totals.get(i, n), 'prompt')} of iteration {i}" for i, n in shown.items()]
        blocks.append(Browser([sample.as_data() for sample in facts.samples], f"A fixed sample: {', '.join(parts)}."))
    else:
        blocks.append(Missing("No responses are published yet."))
    return blocks


def _held_out(facts: RunFacts) -> Block:
    sample = facts.held_out
    rows = [
        (each.prompt, "" if each.win is None else f"win rate of the new answers {each.win:.3f}", each.base, each.new)
        for each in sample.prompts
    ]
    return SideBySide(
        title="The base and the new policy on the same held-out prompts",
        names=("base", f"iteration {sample.iteration}"),
        rows=rows,
        note=f"A fixed sample of {counted(len(rows), 'prompt')}; of each policy its first answer. The win rate is of "
        "all answers to the prompt, as the oracle judges them.",
    )


def _time(facts: RunFacts) -> list[Block]:
    running: list[Block] = [running_table(facts.running)] if facts.running else []
    if not facts.spans:
        return [*running, Missing("No step is published yet.")]
    return [*running, timeline_plot(facts.spans), iteration_cost_table(facts.costs), cost_table(facts.costs)]


def _configuration(facts: RunFacts) -> list[Block]:
    changed = [(s.key, s.value, s.meaning) for s in facts.settings if not s.is_default]
    default = [(s.key, s.value, s.meaning) for s in facts.settings if s.is_default]
    digests = [
        (d.step_id, d.digest[:16], d.rows, f"{d.megabytes:,.2f}", d.code_version, d.created_at) for d in facts.digests
    ]
    headings = ("setting", "value", "meaning")
    in_the_run = [Note(f"Changed in the run: {'; '.join(facts.changed)}.")] if facts.changed else []
    return [
        *in_the_run,
        Table(headings, changed, title="Settings that differ from the defaults"),
        Table(headings, default, title="Settings at their defaults", folded=True),
        Table(
            ("package", "version", "stages"),
            [(package, version, ", ".join(stages)) for package, version, stages in facts.software],
            title="Software",
            folded=True,
        ),
        Table(
            ("artifact", "digest", "rows", "MB", "nemo-sspo", "began"),
            digests,
            title="Artifacts",
            note="The digest is of the content: equal runs have equal digests. 16 of 64 hex digits are shown.",
            folded=True,
        ),
    ]


def _clock(moment: str) -> str:
    return f"{moment[:10]} at {moment[11:16]} UTC"
