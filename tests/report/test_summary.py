"""The table at the end holds what the manifests say, for whole and for unfinished runs."""

import io
import json

import pytest
from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import publish
from nemo_sspo.errors import UserError
from nemo_sspo.report.summary import summarize, summary_table, write_summary
from tests.some_facts import some_facts

PAIRS = {"pairs": 290, "dropped_tie": 8, "dropped_too_long": 2, "dropped_empty": 0}
MARGINS = {"margin_before": 0.5, "margin_after": 0.25, "similarity_mean": 0.5}
TRAIN = {"steps": 20, "loss_first": 40.0, "loss_last": 20.0, "step1_loss": 10.00001, "step1_closed_form": 10.0}
WINS = {"win_vs_base": 0.75, "win_vs_base_low": 0.7, "win_vs_base_high": 0.8, "win_vs_previous": 0.6}
BEST = {f"best_of_n{end}": x for end, x in {"": 16, "_win_vs_base": 0.9, "_win_vs_base_low": 0.85}.items()}


def put(layout, stage, iteration, shard=None, seconds=1.0, **counts):
    final = layout.artifact(stage, iteration, shard)
    with publish(final, stage=stage, iteration=iteration, config={}, inputs={}) as draft:
        draft.facts = some_facts(**counts)
        draft.timings["seconds"] = seconds


@pytest.fixture
def layout(tmp_path):
    run = RunLayout(tmp_path / "demo")
    put(run, "prepare_prompts", 0, prompts=300)
    put(run, "rollout", 1, 0, seconds=2.0, prompts=150, responses=750)
    put(run, "rollout", 1, 1, seconds=3.5, prompts=150, responses=750)
    put(run, "build_pairs", 1, **PAIRS, **MARGINS)
    put(run, "train", 1, seconds=60.0, **TRAIN)
    put(run, "evaluate", 1, **WINS, **BEST, best_of_n_win_vs_base_high=0.95)
    put(run, "rollout", 2, 0, prompts=150, responses=750)
    return run


def text_of(facts):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(facts))
    return console.export_text()


def test_facts_of_each_iteration(layout):
    first, second = summarize(layout)["iterations"]
    assert (first["prompts"], first["responses"], first["pairs"]) == (300, 1500, 290)
    assert first["dropped"] == {"tie": 8, "too_long": 2}
    assert first["seconds"] == {"rollout": 5.5, "build_pairs": 1.0, "train": 60.0, "evaluate": 1.0}
    assert first["step1_relative_error"] == pytest.approx(1e-6)
    assert (second["prompts"], second["pairs"], second["win_vs_base"]) == (150, None, None)


def test_the_table_shows_them(layout):
    text = text_of(summarize(layout))
    for shown in (
        "10 (8 tie, 2 too long)",
        "0.5000 → 0.2500",
        "40 → 20",
        "10.00001",
        "1.0e-06",
        "0.750 [0.700, 0.800]",
        "0.600",
        "0.900 [0.850, 0.950]",
        "5.5",
        "67.5",
    ):
        assert shown in text, shown


def test_a_run_with_nothing_yet(tmp_path):
    layout = RunLayout(tmp_path / "new")
    layout.root.mkdir()
    facts = summarize(layout)
    assert facts["iterations"] == []
    assert "0 iterations" in text_of(facts)
    with pytest.raises(UserError, match="no run lies there"):
        summarize(RunLayout(tmp_path / "absent"))


def test_an_unreadable_manifest_counts_as_not_published(layout):
    (layout.artifact("train", 1) / "manifest.json").write_text("{")
    assert summarize(layout)["iterations"][0]["steps"] is None


def test_it_is_stored_as_data(layout):
    facts = summarize(layout)
    assert json.loads(write_summary(layout, facts).read_text()) == facts
    assert not list(layout.root.glob(".*.tmp"))
