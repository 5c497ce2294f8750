"""A figure's table lists what its traces draw."""

import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.config.repulsions import EuclideanRepulsion
from nemo_sspo.config.stages import Selection
from nemo_sspo.report.blocks import LISTED_ROWS, Plot
from nemo_sspo.report.compare_page import compare_page
from nemo_sspo.report.facts.comparison import compare
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.run_page import run_page
from tests.report.made_run import half_finished_run, plots_of, record
from tests.report.made_selection import put_selection


def test_intervals_are_spread_and_numbers_rounded_once():
    frame = Frame(
        ("who", "win", "steps", "loss"), [("a", Interval(0.5, 0.25, 0.75), 7, 1 / 3), ("b", None, 1234567, None)]
    )
    listed = frame.spread()
    assert listed.names == ["who", "win", "low", "high", "steps", "loss"]
    assert listed.rows == [("a", 0.5, 0.25, 0.75, 7, 0.333333), ("b", None, None, None, 1234567, None)]
    assert frame.where("who", "b").rows == [frame.rows[1]]
    assert frame.known("win").rows == [frame.rows[0]]
    with pytest.raises(ValueError, match="lose"):
        frame["lose"]


def test_of_very_many_rows_some_are_listed_the_last_among_them():
    assert Frame(("n",), []).thinned(3).rows == []
    assert Frame(("n",), [(n,) for n in range(3)]).thinned(3)["n"] == [0, 1, 2]
    assert Frame(("n",), [(n,) for n in range(8)]).thinned(3)["n"] == [0, 3, 6, 7]
    many = Plot("many", "Many", Frame(("n",), [(n,) for n in range(2 * LISTED_ROWS)]), [], "1000 numbers")
    assert many.table.note == "501 of 1,000 rows, evenly spaced."
    assert Plot("few", "Few", Frame(("n",), [(1,)]), [], "1 number").table.note == ""


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    """Every figure of a run with a choice of checkpoints, and of three runs that differ in one number."""
    runs = tmp_path_factory.mktemp("runs")
    chosen = half_finished_run(runs, selection=Selection(candidates=2))
    put_selection(chosen)
    swept = [half_finished_run(runs, f"w{w:g}", repulsion=EuclideanRepulsion(weight=w)) for w in (10.0, 0.1, 1.0)]
    pages = run_page(gather(record(chosen))), compare_page(compare([record(each) for each in swept]))
    return [plot for page in pages for plot in plots_of(page)]


def test_what_a_trace_draws_stands_in_one_column_or_row_of_the_table(plots):
    assert {"selection-1", "sweep", "advantage", "timeline", "win-matrix"} <= {plot.key for plot in plots}
    for plot in plots:
        lines = [*plot.table.rows, *zip(*plot.table.rows, strict=True)]
        for trace in plot.traces:
            if trace.hoverinfo == "skip":  # the scattered points and the ring, which are no series of numbers
                continue
            for values in drawn_numbers(trace):
                assert any(in_order(values, line) for line in lines), (plot.key, trace.name, values)


def drawn_numbers(trace):
    """The values of a trace, without where they stand on the other axis; of a heat map, row by row."""
    if trace.type == "heatmap":
        return [[value for value in row if value is not None] for row in trace.z]
    lying = trace.type == "bar" or trace.error_x.array is not None
    return [list(trace.x if lying else trace.y)]


def in_order(values, line):
    """Whether a column or row has these values, in this order, perhaps with others between them."""
    rest = iter(line)
    return all(value in rest for value in values)
