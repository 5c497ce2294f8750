"""The numbers behind the page are those of the artifacts."""

import json
import math
import platform
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import METRICS, RunLayout
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.tables import COMPARISONS, DROPPED, EVALUATION, PAIRS, REFERENCE, ROLLOUTS, SCORES
from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.environments import Environment
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.report.facts.budget import budget
from nemo_sspo.report.facts.comparison import compare
from nemo_sspo.report.facts.evaluation import BestOfN, evaluations, win_matrix
from nemo_sspo.report.facts.gate_view import binned
from nemo_sspo.report.facts.record import read_run
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.facts.samples import TEXT_CHARACTERS, sample_prompts
from nemo_sspo.report.figures.training import training_plots
from tests.report.made_run import HOSTILE, LOSSES, PROMPTS, half_finished_run, metric_lines, put, record
from tests.stages.runs import experiment

SIGMOID_4, SIGMOID_2 = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-2))
SIMILARITIES = np.cos(np.arange(PROMPTS - 1) / PROMPTS * np.pi / 2)  # of the prompts that are no tie
SAMPLED = {"prompts": 12, "responses": 36, "tokens": 900}
WIN, LOSS = (0.5 + SIGMOID_4 + SIGMOID_2) / 3, (0.5 + 2 - SIGMOID_4 - SIGMOID_2) / 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return half_finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def facts(settings):
    return gather(record(settings), sample_count=5)


def test_what_is_published_and_what_is_missing(facts):
    assert not facts.finished
    assert facts.iterations == [1, 2]
    assert facts.published == 10
    assert facts.planned == facts.published + len(facts.pending)
    assert facts.pending[0] == "iter_0.import_policy"
    assert "iter_2.train" in facts.pending
    assert "iter_1.train" not in facts.pending


def test_who_leads_at_step_1_is_a_rounding_error_and_not_shown(facts, tmp_path):
    """d_w = d_l = 0 there, unless the reference is another policy."""
    (curve,) = facts.curves
    assert math.isnan(curve.metrics["accuracy"][0])
    assert curve.metrics["accuracy"][1:] == [0.5] * 3
    assert curve.metrics["loss"] == list(LOSSES)
    (drawn,) = (plot for plot in training_plots([curve]) if plot.key == "training-accuracy")
    assert [row[1] for row in drawn.table.rows] == [2, 3, 4]
    based = half_finished_run(tmp_path, train=Train(reference="base"))
    assert gather(record(based)).curves[0].metrics["accuracy"] == [0.5] * 4


def test_training_pairs(facts):
    (pairs,) = facts.supervisions
    assert pairs.pairs == PROMPTS - 1
    assert pairs.margin_before == pytest.approx(WIN - LOSS)
    assert pairs.margin_after == pytest.approx(((1 - SIMILARITIES) * (WIN - LOSS)).mean())
    assert pairs.similarity == pytest.approx(SIMILARITIES.mean())
    assert (pairs.chosen_tokens, pairs.rejected_tokens) == (10, 20)
    assert facts.dropped == {1: {"tie": 1}}


def test_the_gate_on_all_response_pairs(facts):
    (view,) = facts.gate_views
    assert view.what == "response pairs"
    assert view.pairs == sum(view.before.counts) == 3 * PROMPTS
    assert view.by_gate["linear"].means == pytest.approx(view.after.means, nan_ok=True)
    assert view.by_gate["none"] == view.before
    points = np.array(view.similarity), np.array(view.margin_before)
    assert view.margin_after == pytest.approx((1 - points[0]) * points[1], abs=2e-4)
    assert view.points_by_gate["power"] == pytest.approx((1 - points[0]) ** 2 * points[1], abs=2e-4)
    assert set(view.margin_before) == {0.0, round(2 * SIGMOID_4 - 1, 4), round(2 * SIGMOID_2 - 1, 4)}


def test_the_gate_on_training_pairs_where_nothing_is_diagnosed(tmp_path):
    facts = gather(record(half_finished_run(tmp_path, diagnosed=False)))
    (view,) = facts.gate_views
    assert facts.diagnosed == {}
    assert view.what == "training pairs"
    assert sorted(view.similarity) == pytest.approx(sorted(SIMILARITIES), abs=1e-4)
    assert view.before.mean == pytest.approx(WIN - LOSS)
    assert view.after.mean == pytest.approx(((1 - SIMILARITIES) * (WIN - LOSS)).mean())
    alike = SIMILARITIES[SIMILARITIES >= 0.95]
    assert view.before.counts[-1] == len(alike) > 0
    assert view.by_gate["power"].means[-1] == pytest.approx(((1 - alike) ** 2 * (WIN - LOSS)).mean())


def test_target_histograms(facts):
    histograms = facts.supervisions[0].histograms
    for name, value in (("p_chosen", WIN), ("p_rejected", LOSS)):
        assert histograms.counts[name][int(value * 20)] == PROMPTS - 1
    for counts in histograms.counts.values():
        assert sum(counts) == PROMPTS - 1
    assert sum(histograms.counts["target_chosen"][:10]) == 0  # the gate never reverses a preference


def test_bins_of_similarity():
    bins = binned(np.array([0.0, 0.05, 0.1, 1.0]), np.array([1.0, 2.0, 5.0, 7.0]), bins=10)
    assert bins.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert bins.means[:3] == [1.5, 5.0, None]
    assert bins.means[-1] == 7.0
    assert bins.mean == pytest.approx(15 / 4)


def test_training_and_the_step_1_identity(facts):
    (curve,) = facts.curves
    assert curve.steps == [1, 2, 3, 4]
    assert tuple(curve.metrics["loss"]) == LOSSES
    assert curve.finished
    (identity,) = facts.identities
    assert identity.holds
    assert identity.relative_difference == 0.0


def test_a_training_under_way_is_read_from_its_scratch(tmp_path):
    settings = half_finished_run(tmp_path)
    scratch = RunLayout(settings.run_dir).scratch("iter_2.train") / "0123"
    scratch.mkdir(parents=True)
    (scratch / METRICS).write_text(metric_lines((9.0, 8.0)) + '{"step": 3, "lo')  # a line that is being written
    running = gather(record(settings)).curves[1]
    assert (running.iteration, running.finished, running.metrics["loss"]) == (2, False, [9.0, 8.0])


def test_costs(facts):
    by_stage = {(cost.iteration, cost.stage): cost for cost in facts.costs}
    train = by_stage[1, "train"]
    assert train.seconds == 7200.0
    assert train.rate == 250.0  # the first step is warm-up
    assert train.peak_memory_gib == 4.0
    assert 0.01 < by_stage[1, "build_pairs"].peak_memory_gib < 64  # of this very process
    assert by_stage[1, "evaluate"].peak_memory_gib is None
    span = next(span for span in facts.spans if span.step_id == "iter_1.train")
    assert (span.ended - span.started).total_seconds() == pytest.approx(7200.0)


def test_gpu_hours_count_the_gpus_a_step_occupies(tmp_path):
    here = Environment(python="python")
    cluster, parallel = LocalCluster(train=here, rollout=here, gpus=8), Parallel(tensor=2, data=2)
    facts = gather(record(half_finished_run(tmp_path, cluster=cluster, parallel=parallel)))
    hours = {cost.stage: cost.gpu_hours for cost in facts.costs if cost.iteration == 1}
    assert hours["train"] == pytest.approx(2 * 4)
    assert hours["build_pairs"] == 0.0


def test_evaluation_and_responses(facts):
    (evaluated,) = facts.evaluations
    assert evaluated.wins["base"] == Interval(0.7, 0.65, 0.75)
    assert evaluated.at_equal_length == Interval(0.6, 0.45, 0.7)
    assert evaluated.best_of_n == BestOfN(16, Interval(0.9, 0.85, 0.95), 40.0)
    assert evaluated.tokens == {"new": 30.0, "previous": 20.0, "base": 20.0}
    (second,) = facts.sampled  # the first iteration's rollouts carry no counts here
    assert (second.iteration, second.responses, second.tokens, second.unfinished) == (2, 36, 25.0, 6)


def test_who_beats_whom_in_both_directions(facts):
    first = facts.evaluations[0]
    wins = {"base": Interval(0.8, 0.7, 0.9), "previous": Interval(0.6, 0.5, 0.65)}
    matrix = win_matrix([first, replace(first, iteration=3, wins=wins)])
    assert matrix.policies == [0, 1, 2, 3]
    assert matrix.cells[1, 0] == Interval(0.7, 0.65, 0.75)
    assert matrix.cells[0, 3].mean == pytest.approx(0.2)
    assert (matrix.cells[0, 3].low, matrix.cells[0, 3].high) == pytest.approx((0.1, 0.3))
    assert matrix.cells[2, 3] == Interval(0.4, 0.35, 0.5)
    assert matrix.cells.keys() == {(1, 0), (0, 1), (3, 0), (0, 3), (3, 2), (2, 3)}


def test_the_evaluations_of_a_run_fill_the_matrix(tmp_path):
    settings = experiment(tmp_path, iterations=4)
    layout = RunLayout(settings.run_dir)
    layout.root.mkdir()
    layout.experiment.write_text(settings.model_dump_json())
    met = {
        1: {"base": 0.5, "previous": 0.5},
        2: {"base": 0.6, "previous": 0.61},
        3: {"base": 0.7, "iter_1": 0.71, "previous": 0.72},
        4: {"base": 0.8, "iter_1": 0.81, "iter_2": 0.82, "previous": 0.83},
    }
    for iteration, wins in met.items():
        ends = {"": 0.0, "_low": -0.1, "_high": 0.1}
        counts = {f"win_vs_{name}{end}": win + by for name, win in wins.items() for end, by in ends.items()}
        put(layout, "evaluate", iteration, **counts)
    cells = win_matrix(evaluations(record(settings))).cells
    ours = {pair: win.mean for pair, win in cells.items() if pair[0] > pair[1]}
    assert ours == {
        **{(1, 0): 0.5, (2, 0): 0.6, (2, 1): 0.61, (3, 0): 0.7, (3, 1): 0.71, (3, 2): 0.72},
        **{(4, 0): 0.8, (4, 1): 0.81, (4, 2): 0.82, (4, 3): 0.83},
    }
    assert cells[1, 4].mean == pytest.approx(0.19)
    assert len(cells) == 20


def test_samples_hold_scores_targets_and_roles(settings):
    samples = sample_prompts(record(settings), 1, PROMPTS)
    assert [sample.prompt_id for sample in samples] == sorted(sample.prompt_id for sample in samples)
    assert len(samples) == PROMPTS
    tie = next(sample for sample in samples if sample.dropped)
    assert (tie.dropped, tie.similarity, {r.role for r in tie.responses}) == ("tie", None, {""})
    pair = next(sample for sample in samples if not sample.dropped)
    assert [response.role for response in pair.responses] == ["chosen", "rejected", ""]
    assert pair.responses[0].score == pytest.approx((4.0 + 2.0) / 3, abs=1e-4)
    assert pair.responses[0].win_rate == pytest.approx(WIN, abs=1e-4)
    assert pair.target_chosen == pytest.approx(0.5 + (1 - pair.similarity) * (WIN - 0.5), abs=1e-3)
    assert HOSTILE in pair.responses[1].text
    assert sample_prompts(record(settings), 1, 3) == samples[:3]


def test_long_texts_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.report.made_run.HOSTILE", "x" * 5000)
    pair = next(s for s in sample_prompts(record(half_finished_run(tmp_path)), 1, PROMPTS) if not s.dropped)
    assert len(pair.responses[1].text) == TEXT_CHARACTERS
    assert pair.responses[1].cut > 3000


def test_progress_of_the_steps_under_way(settings, tmp_path):
    layout = RunLayout(settings.run_dir)
    Progress(layout.progress("iter_2.score.00000")).update(3, 12, unit="prompts", note="loss [3]")
    Progress(layout.progress("iter_1.train")).update(4, 4, unit="steps")  # published: no longer under way
    (running,) = gather(record(settings), sample_count=0).running
    assert (running.step_id, running.done, running.total, running.unit) == ("iter_2.score.00000", 3, 12, "prompts")
    assert 0 <= running.age < 60


def test_a_damaged_table_is_named_and_the_rest_is_read(tmp_path):
    settings = half_finished_run(tmp_path)
    layout = RunLayout(settings.run_dir)
    (layout.artifact("build_pairs", 1) / PAIRS.file).write_bytes(b"not parquet")
    facts = gather(record(settings))
    assert any(PAIRS.file in name for name in facts.unreadable)
    assert [(pairs.pairs, pairs.histograms) for pairs in facts.supervisions] == [(PROMPTS - 1, None)]
    assert facts.evaluations


@pytest.mark.parametrize(
    ("stage", "table", "column"),
    [
        ("rollout/shard_00000", ROLLOUTS, "prompt"),
        ("score/shard_00000", SCORES, "truncated_rows"),
        ("build_pairs", PAIRS, "similarity"),
        ("build_pairs", DROPPED, "reason"),
        ("diagnose", COMPARISONS, "similarity"),
        ("evaluate", EVALUATION, "win_vs_base"),
        ("reference_logps", REFERENCE, "chosen_tokens"),
    ],
)
def test_a_table_of_another_schema_is_named_and_its_numbers_are_not_shown(tmp_path, stage, table, column):
    """The column's numbers are as they were; its type is that of another version."""
    folder = RunLayout((settings := half_finished_run(tmp_path)).run_dir).root / "iter_1" / stage
    found, place = table.read(folder), table.schema.get_field_index(column)
    other = pa.large_string() if pa.types.is_string(found[column].type) else pa.float32()
    pq.write_table(found.set_column(place, column, found[column].cast(other)), folder / table.file)

    comparison = compare([record(settings), record(half_finished_run(tmp_path, name="other"))])
    facts = gather(record(settings))
    (remark,) = {*facts.unreadable, *comparison.runs[0].unreadable}
    assert remark.startswith(f"iter_1/{stage}/{table.file}: columns ")
    assert remark.endswith("make it again")
    samples = [sample for sample in facts.samples if sample.iteration == 1]
    assert bool(samples) == (table is not ROLLOUTS)
    assert all((response.score is None) == (table is SCORES) for sample in samples for response in sample.responses)
    assert all(sample.similarity is None for sample in samples) == (table in (PAIRS, ROLLOUTS))
    assert [pairs.histograms is None for pairs in facts.supervisions] == [table is PAIRS]
    assert bool(facts.gate_views) == (table is not COMPARISONS)
    assert bool(comparison.advantages) == (table is not EVALUATION)


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("build_pairs", "gate_moved_share", "many"),
        ("train", "step1_loss", "40.5"),
        ("evaluate", "win_vs_base_low", None),
        ("rollout/shard_00000", "responses", "36"),
        ("select_model", "stop", 7),
    ],
)
def test_a_fact_of_another_type_is_named_and_not_shown(tmp_path, stage, key, value):
    """No sum goes without the shard that has it."""
    settings = half_finished_run(tmp_path)
    layout = RunLayout(settings.run_dir)
    put(layout, "select_model", 1, stop="nobody wins")
    put(layout, "rollout", 1, 1, **SAMPLED)
    change_counts(layout, "rollout/shard_00000", SAMPLED)
    change_counts(layout, stage, {key: value})
    run = record(settings)
    facts = gather(run)
    (remark,) = (name for name in facts.unreadable if "manifest.json" in name)
    assert remark.startswith(f"iter_1/{stage}/manifest.json: counts.{key} is {value!r}")
    assert (facts.stopped is None) == (stage == "select_model")
    assert bool(facts.identities) == (stage != "train")
    assert bool(facts.evaluations) == (stage != "evaluate")
    assert bool(facts.supervisions) == (stage != "build_pairs")
    assert [found.iteration for found in facts.sampled] == ([2] if stage.startswith("rollout") else [1, 2])
    assert budget(run, 1).responses == (None if stage.startswith("rollout") else 72)


def change_counts(layout, stage, counts):
    """Of a published artifact of iteration 1."""
    file = layout.root / "iter_1" / stage / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["counts"] |= counts
    file.write_text(json.dumps(manifest))


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run lies there"):
        read_run(RunLayout(tmp_path / "absent"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "experiment.json").write_text("{")
    with pytest.raises(UserError, match=r"experiment\.json: not JSON"):
        read_run(RunLayout(tmp_path / "broken"))


def test_software_is_recorded_where_it_was_used(facts):
    recorded = {package: (version, stages) for package, version, stages in facts.software}
    assert recorded["numpy"][0] == np.__version__
    assert recorded["python"][0] == platform.python_version()
    assert {"build_pairs", "train"} <= set(recorded["numpy"][1])


def test_settings_carry_their_meaning(facts):
    by_key = {setting.key: setting for setting in facts.settings}
    assert by_key["iterations"].value == "2"
    assert not by_key["iterations"].is_default
    assert by_key["train.learning_rate"].is_default
    assert "learning rate" in by_key["train.learning_rate"].meaning
    assert json.loads(json.dumps([setting.value for setting in facts.settings]))
