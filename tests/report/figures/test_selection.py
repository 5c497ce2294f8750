"""Which checkpoint was taken and why, and where a run has ended early: in the summary and on the page."""

import io

import pytest
from rich.console import Console

from nemo_sspo.artifacts.layout import SELECTION as SELECTION_FILE
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.stages import Selection
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.render import render
from nemo_sspo.report.run_page import run_page
from nemo_sspo.report.summary import summary, summary_tables
from tests.report.made_run import half_finished_run, plots_of, put, record
from tests.report.made_selection import SELECTION, put_selection
from tests.report.parsed_page import Parsed

STOPPED = "stopped after iteration 1: nobody wins; its result is the base policy"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The made run, with two candidates, whose first iteration has ended it."""
    made = half_finished_run(tmp_path_factory.mktemp("runs"), selection=Selection(candidates=2, early_stop=True))
    put(RunLayout(made.run_dir), "export", 1)
    put_selection(made)
    return made


def section(page, key):
    return next((found for found in page.sections if found.key == key), None)


def test_the_chosen_one_is_ringed_and_every_number_is_told(settings):
    (plot,) = [plot for plot in plots_of(run_page(gather(record(settings)))) if plot.key == "selection-1"]
    ring, wins, equal = plot.figure.data
    assert (ring.name, ring.y, ring.x) == ("chosen", (0.6,), (wins.x[0],))
    assert (wins.y, equal.y) == ((0.6, 0.56), pytest.approx((0.58, 0.54)))
    assert (wins.error_y.array, wins.error_y.arrayminus) == (pytest.approx((0.05, 0.05)), pytest.approx((0.05, 0.05)))
    assert plot.figure.layout.xaxis.ticktext == ("step 10 (chosen)", "step 20")
    assert "step 20 win rate at equal length 0.540 [0.490, 0.590]" in plot.description
    assert plot.note.startswith(SELECTION.reason)
    assert [row[0] for row in plot.table.rows if row[-1] == "chosen"] == [10]
    assert plot.table.rows[1][1:7] == (0.56, 0.51, 0.61, 0.54, 0.49, 0.59)


def test_the_ring_follows_the_criterion(settings):
    other = SELECTION.model_copy(update={"criterion": "length_controlled", "chosen": 1})
    facts = gather(record(settings))
    facts.selections[1] = other
    (plot,) = [plot for plot in plots_of(run_page(facts)) if plot.key == "selection-1"]
    ring = next(trace for trace in plot.figure.data if trace.name == "chosen")
    assert ring.y == pytest.approx((0.54,))


def test_the_page_tells_the_end_and_shows_the_reason_as_text(settings):
    facts = gather(record(settings))
    page = run_page(facts)
    parsed = Parsed(render(page))
    assert SELECTION.reason in parsed.text
    assert any(finding.text == f"The run has {STOPPED}." and finding.state == "warn" for finding in facts.findings)
    assert "result: the base policy" in parsed.text
    # Of iteration 2, which is left out, nothing is waited for.
    assert not [name for name in facts.pending if name.startswith("iter_2")]
    for name in facts.pending:
        put_missing(settings, name)
    assert run_page(gather(record(settings))).status.startswith(f"Finished: the run has {STOPPED}. Drawn")


def put_missing(settings, name):
    prefix, _, rest = name.partition(".")
    stage, _, shard = rest.partition(".")
    put(RunLayout(settings.run_dir), stage, int(prefix[-1]), int(shard) if shard else None)


def test_the_section_is_there_where_there_is_a_choice(tmp_path):
    plain = half_finished_run(tmp_path, "plain", diagnosed=False)
    assert section(run_page(gather(record(plain))), "selection") is None
    waiting = half_finished_run(tmp_path, "waiting", diagnosed=False, selection=Selection(candidates=2))
    (missing,) = section(run_page(gather(record(waiting))), "selection").blocks
    assert "No checkpoint has been chosen yet" in missing.text


def test_a_damaged_selection_is_named(tmp_path):
    made = half_finished_run(tmp_path, diagnosed=False, selection=Selection(candidates=2))
    put_selection(made)
    (RunLayout(made.run_dir).artifact("select_model", 1) / SELECTION_FILE).write_text("{}")
    facts = gather(record(made))
    assert facts.selections == {}
    assert any("not a selection of this version" in remark for remark in facts.unreadable)


def test_the_summary_has_the_choice_and_the_result(settings):
    facts = gather(record(settings))
    made = summary(facts)
    assert made["stopped"] == {"after_iteration": 1, "reason": "nobody wins"}
    assert made["result"] == 0
    first = made["iterations"][0]
    assert (first["selection_win"], first["selection_win_low"], first["selection_criterion"]) == (0.6, 0.55, "win_rate")
    assert (first["selection_chosen_step"], first["selection_reason"]) == (10, SELECTION.reason)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*summary_tables(facts, console.width))
    text = console.export_text()
    for shown in ("step 10 of 20, of 2", "0.600 [0.550, 0.650]", "select_model (s)"):
        assert shown in " ".join(text.split()), shown
    assert any(STOPPED in finding.text for finding in facts.findings)
    going_on = half_finished_run(settings.run_dir.parent, "other", diagnosed=False)
    put(RunLayout(going_on.run_dir), "export", 2)
    assert summary(gather(record(going_on)))["result"] == 2
