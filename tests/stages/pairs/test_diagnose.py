"""The diagnose stage on judgements with known faults, cut into shards or not."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("zarr")

from nemo_sspo.artifacts.diagnostics import Diagnostics, read_diagnostics
from nemo_sspo.artifacts.layout import DIAGNOSTICS
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import COMPARISONS, PAIRS
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.gates import PowerGate
from nemo_sspo.config.stages import Rollout
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.pairs import diagnose
from tests.stages import runs


def publish(settings: Experiment, rows: list[dict], logits: np.ndarray, vectors: dict, shard: int = 0) -> None:
    ids = {response["response_id"] for row in rows for response in row["responses"]}
    runs.publish_rollout(settings, rows, shard=shard)
    runs.publish_scores(settings, runs.score_rows(rows, logits), shard)
    runs.publish_vectors(settings, {key: vectors[key] for key in sorted(ids)}, shard)


def random_world(prompts: int = 40, k: int = 4) -> tuple[list[dict], np.ndarray, dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    words = ["a b c", "a b d", "x y", "long one here", "a b c"]
    texts = [[f"{n} {words[index]}" for index in generator.integers(0, 5, size=k)] for n in range(prompts)]
    rows = runs.rollout_rows(texts)
    ids = sorted({response["response_id"] for row in rows for response in row["responses"]})
    vectors = generator.normal(size=(len(ids), 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = generator.normal(size=(prompts, k, k)) * 2 * (1 - np.eye(k))
    return rows, logits, dict(zip(ids, vectors, strict=True))


def diagnosed(settings: Experiment) -> tuple[Artifact, Diagnostics]:
    runs.run_stage(settings, "build_pairs")
    artifact = runs.run_stage(settings, "diagnose")
    return artifact, read_diagnostics(artifact.file(DIAGNOSTICS))


def test_one_prompt_by_hand(tmp_path: Path) -> None:
    """Responses 0 and 1 are the same text in the same place; 2 is at similarity 0.6 from both, and loses to them."""
    rows = runs.rollout_rows([["ab", "ab", "wxyz"]])
    ids = [response["response_id"] for response in rows[0]["responses"]]
    logits = np.array([[[0.0, 0.5, 3.0], [0.5, 0.0, 1.0], [-1.0, -1.0, 0.0]]])
    settings = runs.experiment(tmp_path, gate=PowerGate(exponent=3.0))
    publish(settings, rows, logits, {ids[0]: np.array([1.0, 0.0]), ids[2]: np.array([0.6, 0.8])})
    artifact, facts = diagnosed(settings)

    assert (facts.prompts, facts.responses_per_prompt, facts.response_pairs) == (1, 3, 3)
    margin_02, margin_12 = (2 * sigmoid(np.array(s)) - 1 for s in (2.0, 1.0))
    tables = {table.gate: table for table in facts.similarity_margin}
    none, linear, configured = tables["none"].bins, tables["linear"].bins, tables["configured"].bins
    assert [b.count for b in none if b.count] == [2, 1]
    assert (none[12].low, none[12].count) == (pytest.approx(0.6), 2)
    assert none[12].mean_margin == pytest.approx((margin_02 + margin_12) / 2, abs=1e-6)
    assert linear[12].mean_margin == pytest.approx(0.4 * (margin_02 + margin_12) / 2, abs=1e-6)
    assert configured[12].mean_margin == pytest.approx(0.4**3 * (margin_02 + margin_12) / 2, abs=1e-6)
    assert none[19].mean_margin == 0.0  # both orders favour the first shown by the same amount
    assert none[0].mean_margin is None
    assert tables["configured"].parameters == {"kind": "power", "exponent": 3.0}
    assert tables["linear"].moved_share == pytest.approx(2 / 3)  # .5 * margin * .6 is above .1 for both
    assert tables["none"].moved_share == 0.0

    assert facts.oracle.order_gap == pytest.approx((1.0 + 2.0 + 0.0) / 3)
    assert facts.oracle.order_lean == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert facts.oracle.order_flip_share == pytest.approx(1 / 3)
    assert facts.oracle.intransitive_share == 0.0
    assert facts.oracle.longer_wins_share == 0.0
    assert facts.duplicates.model_dump() == {
        "exact_share": pytest.approx(1 / 3),
        "near_share": pytest.approx(1 / 3),
        "prompts_share": 1.0,
    }
    assert facts.targets.moved_share == 1.0
    assert sum(facts.targets.chosen_before) == sum(facts.targets.rejected_after) == 1
    assert facts.collapse.distinct_1 == pytest.approx(6 / 8)  # a b w x y z of eight characters
    assert facts.collapse.mean_similarity == pytest.approx((1 + 0.6 + 0.6) / 3, abs=1e-6)
    assert facts.collapse.mean_tokens == pytest.approx((3 + 3 + 5) / 3)
    assert facts.collapse.token_percentiles == {"5": 3, "25": 3, "50": 3, "75": 5, "95": 5, "100": 5}
    assert facts.collapse.unfinished_share == 0.0
    assert facts.calibration is None

    sample = COMPARISONS.read(artifact.path).to_pylist()
    assert len(sample) == 3
    (selected,) = [row for row in sample if row["is_selected_pair"]]
    assert (selected["first"], selected["second"], selected["similarity"]) == (0, 2, pytest.approx(0.6))
    assert selected["p_before"] == pytest.approx(sigmoid(np.array(2.0)))
    assert selected["margin_after"] == pytest.approx(0.4**3 * selected["margin_before"], abs=1e-6)


def test_shards_and_blocks_and_order_are_of_no_consequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, logits, vectors = random_world()
    monkeypatch.setattr(diagnose, "SAMPLED_PAIRS", 50)
    whole = runs.experiment(tmp_path / "one")
    publish(whole, rows, logits, vectors)
    one, facts = diagnosed(whole)

    monkeypatch.setattr(diagnose, "BLOCK_PROMPTS", 7)
    cut = runs.experiment(tmp_path / "two", rollout=Rollout(shards=2))
    for shard, part in enumerate((slice(25, 40), slice(0, 25))):
        publish(cut, rows[part], logits[part], vectors, shard)
    two, in_parts = diagnosed(cut)
    close(in_parts.model_dump(), facts.model_dump())
    samples = [COMPARISONS.read(artifact.path) for artifact in (one, two)]
    keys = ["prompt_id", "first", "second", "is_selected_pair"]
    assert samples[0].num_rows == 50
    assert samples[0].select(keys).equals(samples[1].select(keys))


def close(found, expected) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-7) if isinstance(expected, float) else expected)


def test_the_sample_is_an_even_one_and_the_selected_pairs_are_those_of_build_pairs(tmp_path: Path) -> None:
    rows, logits, vectors = random_world(prompts=300)
    settings = runs.experiment(tmp_path)
    publish(settings, rows, logits, vectors)
    artifact, facts = diagnosed(settings)
    sample = COMPARISONS.read(artifact.path).to_pylist()
    assert len(sample) == facts.response_pairs == 300 * 6
    pairs = pq.read_table(artifact.path.parent / "build_pairs" / PAIRS.file).to_pylist()
    responses = {row["prompt_id"]: [response["response_id"] for response in row["responses"]] for row in rows}
    selected = {
        (row["prompt_id"], *sorted(responses[row["prompt_id"]][row[side]] for side in ("first", "second")))
        for row in sample
        if row["is_selected_pair"]
    }
    assert selected == {(pair["prompt_id"], *sorted((pair["chosen_id"], pair["rejected_id"]))) for pair in pairs}
    first_half = {row["prompt_id"] for row in sample[:900]}
    assert len(first_half) > 285  # 900 draws of 6 pairs a prompt miss a prompt with probability 2^-6


def test_similarity_above_what_any_gate_lets_through_only_lowers_margins(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path)
    publish(settings, *random_world())
    _, facts = diagnosed(settings)
    ungated = facts.similarity_margin[0]
    for table in facts.similarity_margin[1:]:
        for before, after in zip(ungated.bins, table.bins, strict=True):
            assert after.count == before.count
            assert (after.mean_margin or 0) <= (before.mean_margin or 0) + 1e-12


def test_another_version_of_the_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / DIAGNOSTICS
    path.write_text('{"schema_version": 1, "iteration": 1}')
    with pytest.raises(UserError, match=r"diagnostics\.json: not diagnostics of this version"):
        read_diagnostics(path)
