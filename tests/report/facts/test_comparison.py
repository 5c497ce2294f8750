"""Several runs: what differs between them, and what may be said of their win rates."""

import json
from dataclasses import replace

import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.gates import PowerGate
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.config.repulsions import EuclideanRepulsion
from nemo_sspo.errors import UserError
from nemo_sspo.report.compare_page import compare_page
from nemo_sspo.report.facts.budget import Budget
from nemo_sspo.report.facts.comparison import compare, sweep, verdicts
from nemo_sspo.report.facts.record import read_run
from tests.report.made_run import half_finished_run, record


def test_comparison_pairs_prompts_and_names_what_differs(tmp_path):
    first, second = half_finished_run(tmp_path, "one"), half_finished_run(tmp_path, "two", gate=PowerGate(exponent=3))
    compared = compare([record(first), record(second)])
    assert compared.labels == ["one", "two"]
    assert compared.same_base
    assert ("gate.kind", ["linear", "power"]) in compared.differences
    assert ("gate.exponent", ["unset", "3.0"]) in compared.differences
    assert {key.split(".")[0] for key, _ in compared.differences} == {"gate"}
    (advantage,) = compared.advantages
    assert (advantage.prompts, advantage.difference) == (4, Interval(0.0, 0.0, 0.0))
    assert [(f.state, f.text.split(" in ")[0]) for f in verdicts(compared)] == [
        ("warn", "two cannot be told apart from one")
    ]
    with pytest.raises(UserError, match="given twice"):
        compare([record(first), record(first)])
    assert read_run(RunLayout(second.run_dir)).pending == []  # without a plan nothing is known to be missing


def test_a_paired_difference_is_clear_where_every_prompt_agrees(tmp_path):
    better = half_finished_run(tmp_path, "better", wins=(0.7, 0.8, 0.8, 0.9))
    runs = [record(half_finished_run(tmp_path, "baseline")), record(better)]
    (advantage,) = compare(runs).advantages
    assert advantage.difference.mean == pytest.approx(0.1)
    assert advantage.is_clear  # though the two runs' own intervals overlap
    assert [finding.state for finding in verdicts(compare(runs))] == ["good"]
    assert [finding.state for finding in verdicts(compare(runs[::-1]))] == ["bad"]


def test_runs_of_different_oracles_are_not_compared(tmp_path):
    first = half_finished_run(tmp_path, "one")
    second = half_finished_run(tmp_path, "two", oracle=PairRMOracle(path="another"))
    compared = compare([record(first), record(second)])
    assert not compared.same_base
    assert verdicts(compared) == []


def test_unequal_budgets_get_no_verdict(tmp_path):
    """Twice the steps, or twice the pairs, may win for that alone; a few pairs fewer are an outcome."""
    better = {"wins": (0.7, 0.8, 0.8, 0.9)}
    baseline = record(half_finished_run(tmp_path, "baseline"))
    longer = half_finished_run(tmp_path, "longer", **better)
    republish(longer, "train", steps=8)
    compared = compare([baseline, record(longer)])
    (finding,) = verdicts(compared)
    assert (finding.state, finding.mark) == ("warn", "no verdict")
    assert "8 optimizer steps, baseline " in finding.text
    assert "4 optimizer steps." in finding.text
    assert not compared.advantages[0].is_clear
    assert [spent.steps for spent in compared.budgets] == [4, 8]
    said = str(compare_page(compared))
    assert "unequal budgets" in said
    for heading in ("prompts", "pairs", "steps"):
        assert f"'{heading}'" in said

    republish(longer, "train", steps=4)
    assert [finding.mark for finding in verdicts(compare([baseline, record(longer)]))] == ["better"]
    republish(longer, "rollout", 0, prompts=24, responses=72)
    assert [finding.mark for finding in verdicts(compare([baseline, record(longer)]))] == ["no verdict"]


def test_a_budget_is_the_same_but_for_a_few_dropped_pairs():
    spent = Budget(prompts=600, responses=3000, pairs=600, steps=20)
    assert spent.equals(replace(spent, pairs=594))
    assert not spent.equals(replace(spent, pairs=593))
    assert not spent.equals(replace(spent, pairs=None))
    assert not spent.equals(replace(spent, steps=21))
    assert not spent.equals(replace(spent, prompts=601))
    assert str(replace(spent, steps=None)) == "600 prompts, 600 pairs, ? optimizer steps"


def republish(settings, stage, shard=None, **counts):
    """Publish a step of iteration 1 again with other counts."""
    final = RunLayout(settings.run_dir).artifact(stage, 1, shard)
    manifest = json.loads((final / "manifest.json").read_text())
    manifest["counts"] |= counts
    (final / "manifest.json").write_text(json.dumps(manifest))


def test_a_sweep_of_one_number(tmp_path):
    runs = [
        record(half_finished_run(tmp_path, f"lambda-{weight}", repulsion=EuclideanRepulsion(weight=weight)))
        for weight in (10.0, 0.1, 1.0)
    ]
    assert sweep(compare(runs)) == ("repulsion.weight", [(w, Interval(0.7, 0.65, 0.75)) for w in (0.1, 1.0, 10.0)])
    assert sweep(compare(runs[:2])) is None
    other = record(half_finished_run(tmp_path, "other", repulsion=EuclideanRepulsion(weight=3.0), seed=1))
    assert sweep(compare([*runs, other])) is None
