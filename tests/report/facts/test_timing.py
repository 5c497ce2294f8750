"""What ran beside what, and how often models were loaded."""

from datetime import UTC, datetime, timedelta

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.facts.timing import Overlap, Span, overlap
from nemo_sspo.report.figures.timing import cost_table, timeline_plot
from tests.report.made_run import half_finished_run, put, record

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def span(stage: str, begin: float, end: float) -> Span:
    name = f"iter_1.{stage}.{begin}"
    return Span(name, stage, 1, BEGUN + timedelta(seconds=begin), BEGUN + timedelta(seconds=end), 0)


def test_overlap_counts_what_runs_at_once_once():
    """Sampled 0-10 (two shard batches) and 20-30; judged 4-6 (twice), 9-12, 12-21 and 40-41."""
    sampled = [span("rollout", 0, 10), span("rollout", 2, 9), span("rollout", 20, 30)]
    judged = [span("score", 4, 6), span("embed", 5, 6), span("score", 9, 12), span("embed", 12, 21)]
    spans = [*sampled, *judged, span("score", 40, 41), span("train", 0, 41), span("rollout_held_out", 40, 41)]
    assert overlap(spans) == Overlap(beside=2 + 1 + 1, judging=2 + 12 + 1)
    text = timeline_plot(spans).description
    assert "Of the 15.0 seconds in which responses were scored or embedded, others were sampled during 4.0." in text
    assert overlap(sampled) == Overlap(0.0, 0.0)
    assert "scored" not in timeline_plot(sampled).description


def test_model_loads_of_a_stage(tmp_path):
    """Three shards by two processes: two of the steps tell of a load."""
    settings = half_finished_run(tmp_path)
    layout = RunLayout(settings.run_dir)
    for shard, loading in enumerate((2.5, None, 1.5)):
        timings = {"seconds": 9.0} | ({"loading_seconds": loading} if loading else {})
        put(layout, "embed", 2, shard, timings=timings)
    costs = {(cost.iteration, cost.stage): cost for cost in gather(record(settings)).costs}
    cost = costs[2, "embed"]
    assert (cost.shards, cost.loads, cost.loading_seconds, cost.seconds) == (3, 2, pytest.approx(4.0), 27.0)
    assert costs[1, "train"].loads == 0
    table = cost_table([cost])
    assert table.rows[0][table.headings.index("model loads")] == "2 in 4.0 s"
