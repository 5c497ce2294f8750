"""Every finding follows its rule."""

from dataclasses import replace

import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.published import published_steps
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.facts.training import Step1Identity, TrainingCurve, step1_identities
from nemo_sspo.report.facts.verdict import Evidence, findings
from tests.report.made_run import half_finished_run, put, record


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return gather(record(half_finished_run(tmp_path_factory.mktemp("runs"))), sample_count=0)


def test_findings_follow_their_rules(facts):
    states = {finding.text.split(":")[0]: finding.state for finding in facts.findings}
    assert states["Iteration 1 beats the base policy"] == "good"
    assert states["Iteration 1"] == "good"  # the loss fell
    assert any(f.state == "warn" and "20.0 to 30.0 tokens (+50%)" in f.text for f in facts.findings)
    assert any(f.state == "warn" and "17% of the responses are cut" in f.text for f in facts.findings)
    outcomes = [finding.state for finding in facts.findings]
    assert outcomes == sorted(outcomes, key=["bad", "warn", "good"].index)


def test_findings_of_a_run_that_went_wrong():
    metrics = {"loss": [1.0, 2.0], "effective_rank": [50.0, 20.0], "pairs": [4.0, 4.0]}
    curve = TrainingCurve(1, True, [1, 2], metrics)
    evidence = Evidence([], [], [curve], [Step1Identity(1, 40.0, 41.0)], {}, {})
    outcomes = [(finding.state, finding.text) for finding in findings(evidence)]
    assert [state for state, _ in outcomes] == ["bad", "warn", "warn"]
    assert "differs from its closed form" in outcomes[0][1]
    assert any("ended above its start, 1 → 2" in text for _, text in outcomes)
    assert any("(-60%)" in text for _, text in outcomes)


@pytest.mark.parametrize(
    ("win", "state"),
    [(Interval(0.52, 0.48, 0.56), "warn"), (Interval(0.4, 0.35, 0.45), "bad"), (Interval(0.6, 0.55, 0.65), "good")],
)
def test_a_win_rate_is_judged_by_its_interval(facts, win, state):
    evaluated = facts.evaluations[0]
    changed = replace(evaluated, wins={"base": win}, tokens={}, at_equal_length=None)
    (finding,) = findings(Evidence([changed], [], [], [], {}, {}))
    assert finding.state == state


@pytest.mark.parametrize(
    ("controlled", "states"),
    [
        (Interval(0.6, 0.55, 0.65), ["good", "good"]),
        (Interval(0.6, 0.45, 0.7), ["warn", "good"]),
        (Interval(0.4, 0.35, 0.45), ["warn", "good"]),
        (None, ["good"]),
    ],
)
def test_a_win_that_longer_answers_explain_is_a_warning(facts, controlled, states):
    changed = replace(
        facts.evaluations[0], tokens={}, wins={"base": Interval(0.7, 0.65, 0.75)}, at_equal_length=controlled
    )
    found = findings(Evidence([changed], [], [], [], {}, {}))
    assert [finding.state for finding in found] == states
    assert any("at equal length" in finding.text for finding in found) == (controlled is not None)
    lost = replace(changed, wins={"base": Interval(0.4, 0.35, 0.45)})
    assert [finding.state for finding in findings(Evidence([lost], [], [], [], {}, {}))] == ["bad"]


def test_findings_on_the_oracle_and_diversity(facts):
    first = facts.diagnosed[1]
    oracle = first.oracle.model_copy(update={"order_flip_share": 0.25, "length_correlation": 0.4})
    later = first.model_copy(
        update={"oracle": oracle, "collapse": first.collapse.model_copy(update={"distinct_2": 0.1})}
    )
    outcomes = [(f.state, f.text) for f in findings(Evidence([], [], [], [], {}, {1: first, 2: later}))]
    assert [state for state, _ in outcomes] == ["warn"] * 3
    assert any("in 25% of the response pairs" in text for _, text in outcomes)
    assert any("correlation +0.40" in text for _, text in outcomes)
    assert any("0.10 in iteration 2" in text for _, text in outcomes)


@pytest.mark.parametrize(
    ("precision", "loss", "state"),
    [
        ("fp32", 40.0 * (1 + 5e-5), "good"),
        ("fp32", 40.0 * (1 + 5e-4), "bad"),
        ("bf16", 40.0 * (1 + 5e-4), "good"),  # seen: rows of other lengths round otherwise
        ("bf16", 40.0 * (1 + 2e-2), "bad"),
        ("fp8", 40.0 * (1 + 2e-2), "good"),
    ],
)
def test_the_loss_at_step_1_is_judged_by_the_rounding_of_its_precision(tmp_path, precision, loss, state):
    layout = RunLayout(tmp_path)
    put(layout, "train", 1, config={"precision.kind": precision}, step1_loss=loss, step1_closed_form=40.0)
    identities = step1_identities(RunRecord(layout, {}, published_steps(layout)))
    (finding,) = findings(Evidence([], [], [], identities, {}, {}))
    assert finding.state == state
