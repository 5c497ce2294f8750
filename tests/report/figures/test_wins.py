"""The win over the base is shown as it is measured: as sampled, at equal length, for the best of n."""

from dataclasses import replace

import pytest

from nemo_sspo.report.blocks import Table
from nemo_sspo.report.compare_page import compare_page
from nemo_sspo.report.facts.budget import budget
from nemo_sspo.report.facts.comparison import Comparison
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.render import render
from nemo_sspo.report.run_page import run_page
from tests.report.made_run import half_finished_run, plots_of, record


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return half_finished_run(tmp_path_factory.mktemp("runs"))


def test_the_win_over_the_base_is_shown_as_sampled_at_equal_length_and_for_the_best_of_n(settings):
    page = run_page(gather(record(settings), sample_count=0))
    (plot,) = [p for p in plots_of(page) if p.key == "win-measures"]
    assert plot.table.rows == [
        ("as sampled", 1, 0.7, 0.65, 0.75),
        ("at equal length", 1, 0.6, 0.45, 0.7),
        ("best of 16", 1, 0.9, 0.85, 0.95),
    ]
    assert [trace.y for trace in plot.figure.data] == [(0.7,), (0.6,), (0.9,)]
    assert plot.figure.data[1].error_y.array == pytest.approx((0.1,))
    assert plot.figure.data[1].error_y.arrayminus == pytest.approx((0.15,))
    text = render(page)
    assert "0.600 at equal length" in text  # beside the headline
    assert "best of 16 vs base" in text  # on the iteration's card


def test_without_other_measures_the_win_over_the_base_is_drawn_once(settings):
    facts = gather(record(settings), sample_count=0)
    plain = [replace(e, at_equal_length=None, best_of_n=None) for e in facts.evaluations]
    keys = {p.key for p in plots_of(run_page(replace(facts, evaluations=plain)))}
    assert "win-rates" in keys
    assert "win-measures" not in keys


def test_compared_runs_name_their_n(settings, tmp_path):
    first = gather(record(settings), sample_count=0)
    of_four = replace(first.evaluations[0].best_of_n, n=4)
    second = replace(
        first, evaluations=[replace(e, best_of_n=of_four, at_equal_length=None) for e in first.evaluations]
    )
    spent = [budget(record(settings), 1)] * 2
    page = compare_page(Comparison(["one", "two"], [first, second], [], [], True, spent))
    tables = {p.key: p.table.rows for p in plots_of(page)}
    assert [row[:3] for row in tables["compare-best-of-n"]] == [("one, best of 16", 1, 0.9), ("two, best of 4", 1, 0.9)]
    assert tables["compare-win-equal-length"] == [("one", 1, 0.6, 0.45, 0.7)]
    (table,) = [block for block in page.sections[0].blocks if isinstance(block, Table)]
    lines = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert [line["best of n"] for line in lines] == ["0.900 [0.850, 0.950] (n = 16)", "0.900 [0.850, 0.950] (n = 4)"]
    assert [line["at equal length"] for line in lines] == ["0.600 [0.450, 0.700]", "-"]
    without = replace(second, evaluations=[replace(e, best_of_n=None) for e in second.evaluations])
    page = compare_page(Comparison(["one", "two"], [without, without], [], [], True, spent))
    (table,) = [block for block in page.sections[0].blocks if isinstance(block, Table)]
    assert not {"best of n", "at equal length"} & set(table.headings)
