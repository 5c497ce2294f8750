"""The summary tells the page's facts, for whole and for unfinished runs."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.commands.report import gathered
from nemo_sspo.errors import UserError
from nemo_sspo.report.blocks import Cards
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.run_page import run_page
from nemo_sspo.report.summary import summary, summary_tables, write_summary
from tests.report.made_run import PROMPTS, half_finished_run, plots_of, put, record

_WINS = ("win_vs_base", "win_vs_previous", "length_controlled_win_vs_base")
KEYS = [
    *("iteration", "prompts", "responses", "pairs", "dropped", "margin_before", "margin_after", "similarity"),
    *("reference_source", "reference_difference", "steps", "loss_first", "loss_last"),
    *("step1_loss", "step1_closed_form", "step1_relative_error"),
    *(f"selection_{name}" for name in ("candidates", "chosen_step", "last_step", "criterion")),
    *("selection_win", "selection_win_low", "selection_win_high", "selection_reason"),
    *(f"{name}{end}" for name in _WINS for end in ("", "_low", "_high")),
    *("best_of_n", "best_of_n_win_vs_base", "best_of_n_win_vs_base_low", "best_of_n_win_vs_base_high"),
    *("mean_tokens", "base_mean_tokens", "seconds"),
]
"""Of an iteration in summary.json, which other programs read."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return half_finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def facts(settings):
    return gather(record(settings), sample_count=0)


def text_of(facts):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*summary_tables(facts, console.width))
    return console.export_text()


def test_facts_of_each_iteration(facts):
    made = summary(facts)
    assert list(made) == [
        *("run", "prompts", "preparation_seconds", "iterations", "failed", "changed", "stopped", "result")
    ]
    assert (made["prompts"], made["preparation_seconds"]) == (
        {"prompts": 24, "held_out": 4},
        {"prepare_prompts": 1.0},
    )
    first, second = made["iterations"]
    assert list(first) == list(second) == KEYS
    assert (first["pairs"], first["dropped"]) == (PROMPTS - 1, {"tie": 1})
    assert first["margin_before"] > first["margin_after"] > 0
    assert (first["steps"], first["loss_first"], first["loss_last"]) == (4, 40.0, 10.0)
    assert (first["step1_loss"], first["step1_relative_error"]) == (40.5, 0.0)
    assert (first["win_vs_base"], first["win_vs_base_low"], first["win_vs_base_high"]) == (0.7, 0.65, 0.75)
    assert (first["best_of_n"], first["best_of_n_win_vs_base_high"], first["base_mean_tokens"]) == (16, 0.95, 20.0)
    assert (first["seconds"]["train"], list(first["seconds"])[:2]) == (7200.0, ["rollout", "score"])
    assert (second["prompts"], second["responses"]) == (12, 36)
    assert (second["pairs"], second["dropped"], second["win_vs_base"]) == (None, {}, None)


def test_the_table_shows_what_the_pages_cards_show(facts):
    text = " ".join(text_of(facts).replace("│", " ").split())
    for shown in (
        *("prompts without a pair 1 tie", "40 → 10", "40.5", "0.0e+00", "0.700 [0.650, 0.750]", "20.0 → 30.0"),
        *("best of 16 vs base 0.900 [0.850, 0.950]", "train (s) 7200.0"),
    ):
        assert shown in text, shown
    (cards,) = [block for section in run_page(facts).sections for block in section.blocks if isinstance(block, Cards)]
    first, second = (dict(card.rows) for card in cards.cards)
    assert first.pop("work") == "2 h 00 min"
    for label, value in first.items():
        assert f"{label} {value}" in text, label
    assert second["prompts, responses"] == "12, 36"


def test_a_prompt_can_be_dropped_for_several_reasons(tmp_path):
    made = half_finished_run(tmp_path)
    put(RunLayout(made.run_dir), "build_pairs", 2, dropped_tie=2, dropped_too_long=1, dropped_empty=0)
    facts = gather(record(made), sample_count=0)
    assert summary(facts)["iterations"][1]["dropped"] == {"tie": 2, "too_long": 1}
    assert "3 (2 tie, 1 too long)" in text_of(facts)


def test_pairs_are_told_from_the_manifest_also_where_their_table_is_damaged(tmp_path):
    made = half_finished_run(tmp_path)
    whole = summary(gather(record(made), sample_count=0))["iterations"][0]
    (RunLayout(made.run_dir).artifact("build_pairs", 1) / PAIRS.file).write_text("damaged")
    facts = gather(record(made), sample_count=0)
    assert summary(facts)["iterations"][0] == whole
    assert any(PAIRS.file in name for name in facts.unreadable)
    assert not [plot for plot in plots_of(run_page(facts)) if plot.key.startswith("targets")]


def test_where_the_engines_log_probs_were_compared_the_difference_is_told(tmp_path):
    made = half_finished_run(tmp_path)
    put(RunLayout(made.run_dir), "reference_logps", 2, source="rollout", largest_difference=0.0125)
    facts = gather(record(made), sample_count=0)
    first, second = summary(facts)["iterations"]
    assert (first["reference_source"], first["reference_difference"]) == (None, None)
    assert (second["reference_source"], second["reference_difference"]) == ("rollout", 0.0125)
    assert "rollout (0.013)" in text_of(facts)


def test_a_run_with_nothing_yet(settings, tmp_path):
    layout = RunLayout(tmp_path / "new")
    layout.root.mkdir()
    layout.experiment.write_text(settings.model_copy(update={"name": "new", "runs_dir": tmp_path}).model_dump_json())
    facts = gathered(layout)
    assert (summary(facts)["iterations"], summary(facts)["result"]) == ([], 0)
    assert "0 iterations" in text_of(facts)
    with pytest.raises(UserError, match="no run lies there"):
        gathered(RunLayout(tmp_path / "absent"))


def test_an_unreadable_manifest_counts_as_not_published(tmp_path):
    made = half_finished_run(tmp_path)
    (RunLayout(made.run_dir).artifact("train", 1) / "manifest.json").write_text("{")
    first = summary(gather(record(made), sample_count=0))["iterations"][0]
    assert (first["steps"], first["step1_loss"], first["pairs"]) == (None, None, PROMPTS - 1)


def test_it_is_stored_as_data(facts, tmp_path):
    assert json.loads(write_summary(RunLayout(tmp_path), facts).read_text()) == summary(facts)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("width", [80, 60])
def test_iterations_that_do_not_fit_beside_each_other_stand_in_tables_of_their_own(settings, width):
    facts = gathered(RunLayout(settings.run_dir))
    many = replace(
        facts, iterations=[1, 2, 3], evaluations=[replace(facts.evaluations[0], iteration=i) for i in (1, 2, 3)]
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*summary_tables(many, width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert sum("win rate vs base" in line for line in lines) == {80: 2, 60: 3}[width]
    assert (
        sum(line.count("0.700 [0.650, 0.750]") for line in lines) == 6
    )  # never broken: against the base and the previous
