"""Every figure names its axes, and its caption tells of nothing that is not drawn."""

from dataclasses import replace

import pytest

from nemo_sspo.report.facts.evaluation import win_matrix
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.figures.evaluation import length_plot, matrix_plot, win_rate_plots
from nemo_sspo.report.run_page import run_page
from tests.report.made_run import half_finished_run, plots_of, record


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return gather(record(half_finished_run(tmp_path_factory.mktemp("runs"))))


def test_both_axes_of_every_figure_say_what_they_are(facts):
    for plot in plots_of(run_page(facts)):
        layout = plot.figure.layout
        for axis in (layout.xaxis, layout.yaxis):
            assert axis.title.text or axis.ticktext, plot.key


def test_a_measure_that_is_not_drawn_is_not_explained(facts):
    (_, measured) = win_rate_plots(facts.evaluations)
    assert "Best of n" in measured.note
    (_, plain) = win_rate_plots([replace(each, best_of_n=None) for each in facts.evaluations])
    assert "Best of n" not in plain.note
    assert "At equal length" in plain.note


def test_responses_that_are_not_drawn_are_not_explained(facts):
    assert "Training responses" in length_plot(facts.evaluations, facts.sampled, []).note
    assert "Training responses" not in length_plot(facts.evaluations, [], []).note
    assert "Held-out responses" not in length_plot([], facts.sampled, []).note


def test_empty_cells_are_explained_where_there_are_any(facts):
    (first,) = facts.evaluations
    assert "Empty" not in matrix_plot(win_matrix([first])).note
    later = replace(first, iteration=3, wins={"base": first.wins["base"]})
    assert "Empty: not compared." in matrix_plot(win_matrix([first, later])).note


def test_the_page_ends_with_a_glossary_of_its_words(facts):
    glossary = run_page(facts).sections[-1]
    assert glossary.title == "Glossary"
    terms = [row[0] for row in glossary.blocks[0].rows]
    assert {"win rate", "margin", "gate", "effective rank", "d_w, d_l", "MFU"} <= set(terms)
    assert len(terms) == len(set(terms))
