"""Pairs from rollouts, scores and embeddings with known content: values by hand, invariants, and planted faults."""

import json
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("zarr")

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nemo_sspo.artifacts.layout import SPELLED
from nemo_sspo.artifacts.store import Artifact, Draft
from nemo_sspo.artifacts.tables import DROPPED, PAIRS
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.gates import CustomGate, NoGate
from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.config.stages import Judging, Pairs, Rollout
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.pairs import build_pairs
from nemo_sspo.stages.pairs.join import JoinedShard
from nemo_sspo.stages.sampling import judging as judging_stage
from tests.stages import runs
from tests.stages.fake_oracle import FormulaJudge

TEXTS = [["best one", "middle", "worst"], ["x", "yy", "zzz"]]


def vectors_for(rows: list[dict], dimension: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    ids = {response["response_id"] for row in rows for response in row["responses"]}
    vectors = generator.normal(size=(len(ids), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(sorted(ids), vectors, strict=True))


def logits_for(scores: list[list[float]]) -> np.ndarray:
    """A transitive oracle without order bias: l_ij = score_i - score_j."""
    s = np.array(scores)
    return s[:, :, None] - s[:, None, :]


def publish_all(settings: Experiment, rows: list[dict], logits: np.ndarray, shard: int = 0) -> dict[str, np.ndarray]:
    vectors = vectors_for(rows)
    runs.publish_rollout(settings, rows, shard=shard)
    runs.publish_scores(settings, runs.score_rows(rows, logits), shard)
    runs.publish_vectors(settings, vectors, shard)
    return vectors


def test_the_pair_and_its_targets_by_hand(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path)
    rows = runs.rollout_rows(TEXTS)
    vectors = publish_all(settings, rows, logits_for([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]))
    artifact = runs.run_stage(settings, "build_pairs")
    pairs = PAIRS.read(artifact.path).to_pylist()
    assert len(pairs) == artifact.manifest.rows == 2

    pair, row = pairs[0], rows[0]
    chosen, rejected = row["responses"][0], row["responses"][2]
    assert (pair["prompt_id"], pair["prompt_token_ids"]) == (row["prompt_id"], [1, 1])
    assert (pair["chosen_id"], pair["chosen_token_ids"]) == (chosen["response_id"], chosen["token_ids"])
    assert (pair["rejected_id"], pair["rejected_token_ids"]) == (rejected["response_id"], rejected["token_ids"])
    p_chosen = (0.5 + sigmoid(1.0) + sigmoid(2.0)) / 3
    similarity = max(0.0, float(vectors[chosen["response_id"]] @ vectors[rejected["response_id"]]))
    assert pair["similarity"] == pytest.approx(similarity, abs=1e-6)
    assert pair["p_chosen"] == pytest.approx(p_chosen, abs=1e-12)
    assert pair["p_rejected"] == pytest.approx(1 - p_chosen, abs=1e-12)
    assert pair["target_chosen"] == pytest.approx(0.5 + (1 - similarity) * (p_chosen - 0.5), abs=1e-6)
    assert pair["target_pair"] == pytest.approx(0.5 + (1 - similarity) * (sigmoid(2.0) - 0.5), abs=1e-6)
    assert pair["margin_before"] == pytest.approx(2 * p_chosen - 1, abs=1e-12)
    assert pair["margin_after"] == pytest.approx(pair["target_chosen"] - pair["target_rejected"], abs=1e-12)
    assert pairs[1]["chosen_id"] == rows[1]["responses"][1]["response_id"]
    counts = artifact.manifest.counts
    assert counts["margin_before"] == pytest.approx(np.mean([p["margin_before"] for p in pairs]))
    assert counts["similarity_mean"] == pytest.approx(np.mean([p["similarity"] for p in pairs]))


@given(
    scores=st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_row_order_in_the_inputs_is_of_no_consequence(
    tmp_path_factory: pytest.TempPathFactory, scores: list[list[float]], order
) -> None:
    scores = [[0.0, 1.0, 2.0, 3.0], *scores]  # one prompt at least has a pair
    rows = runs.rollout_rows([[f"{n}.{k}" * (k + 1) for k in range(4)] for n in range(len(scores))])
    logits = logits_for(scores)
    tables = []
    for shuffle in (False, True):
        settings = runs.experiment(tmp_path_factory.mktemp("order"))
        vectors, scored = vectors_for(rows), runs.score_rows(rows, logits)
        if shuffle:
            order.shuffle(scored)
            items = list(vectors.items())
            order.shuffle(items)
            vectors = dict(items)
        runs.publish_rollout(settings, rows)
        runs.publish_scores(settings, scored)
        runs.publish_vectors(settings, vectors)
        path = runs.run_stage(settings, "build_pairs").path
        tables.append((PAIRS.read(path), DROPPED.read(path)))
    assert tables[0] == tables[1]


def test_shards_together_equal_one(tmp_path: Path) -> None:
    rows = runs.rollout_rows([[f"{n}{c}" for c in "abc"] for n in range(5)])
    logits = logits_for(np.random.default_rng(1).normal(size=(5, 3)).tolist())
    whole = runs.experiment(tmp_path / "one")
    publish_all(whole, rows, logits)
    cut = runs.experiment(tmp_path / "two", rollout=Rollout(shards=2))
    vectors = vectors_for(rows)
    for shard, part in enumerate((slice(0, 2), slice(2, 5))):
        runs.publish_rollout(cut, rows[part], shard=shard)
        runs.publish_scores(cut, runs.score_rows(rows[part], logits[part]), shard)
        ids = {response["response_id"] for row in rows[part] for response in row["responses"]}
        runs.publish_vectors(cut, {key: vectors[key] for key in sorted(ids)}, shard)
    one, two = (runs.run_stage(settings, "build_pairs") for settings in (whole, cut))
    assert PAIRS.read(one.path).equals(PAIRS.read(two.path))
    assert one.manifest.counts == two.manifest.counts


def test_a_shard_is_let_go_before_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = runs.experiment(tmp_path, rollout=Rollout(shards=3))
    for shard, row in enumerate(runs.rollout_rows([[f"{n}{c}" for c in "abc"] for n in range(3)])):
        publish_all(settings, [row], logits_for([[0.0, 1.0, 2.0]]), shard)
    read: list[weakref.ref] = []
    join = build_pairs.join_shard

    def watched(*artifacts: Artifact) -> JoinedShard:
        assert not any(shard() for shard in read)
        read.append(weakref.ref(shard := join(*artifacts)))
        return shard

    monkeypatch.setattr(build_pairs, "join_shard", watched)
    assert runs.run_stage(settings, "build_pairs").manifest.rows == len(read) == 3


def test_every_reason_to_drop_and_their_order(tmp_path: Path) -> None:
    texts = [["good", "bad"], ["same", "same"], ["tied", "tier"], ["good", " \n"], ["good", "long " * 9]]
    rows = [
        *runs.rollout_rows(texts, name="stop"),
        *runs.rollout_rows([["good", "endless"]], name="cut", finish_reason="length"),
    ]
    logits = logits_for([[1, 0], [1, 0], [0, 0], [1, 0], [1, 0], [1, 0]])
    settings = runs.experiment(tmp_path, pairs=Pairs(unfinished="drop", max_tokens=20))
    publish_all(settings, rows, logits)
    artifact = runs.run_stage(settings, "build_pairs")
    dropped = {row["prompt_id"]: row["reason"] for row in DROPPED.read(artifact.path).to_pylist()}
    expected = ["identical_texts", "tie", "empty", "too_long", "unfinished"]
    assert dropped == {row["prompt_id"]: reason for row, reason in zip(rows[1:], expected, strict=True)}
    counts = artifact.manifest.counts
    assert (counts["prompts"], counts["pairs"]) == (6, 1)
    assert [counts[f"dropped_{reason}"] for reason in expected] == [1] * 5


def test_the_length_limit_counts_prompt_and_the_longer_response(tmp_path: Path) -> None:
    rows = runs.rollout_rows([["good", "worse"]], prompt_tokens=10)  # 10 + len("worse") + 1 end token = 16
    for limit, pairs in ((16, 1), (15, 0)):
        settings = runs.experiment(tmp_path / str(limit), pairs=Pairs(max_tokens=limit))
        publish_all(settings, rows, logits_for([[1, 0]]))
        if pairs:
            assert runs.run_stage(settings, "build_pairs").manifest.rows == 1
        else:
            with pytest.raises(UserError, match="no pair is left of 1 prompt "):
                runs.run_stage(settings, "build_pairs")


def test_no_gate_leaves_the_win_rates_and_a_custom_gate_is_called(tmp_path: Path) -> None:
    rows, logits = runs.rollout_rows(TEXTS), logits_for([[2, 1, 0], [0, 3, 1]])
    plain = runs.experiment(tmp_path / "a", gate=NoGate())
    custom = runs.experiment(
        tmp_path / "b", gate=CustomGate(function="nemo_sspo.objective.gates:power", arguments={"exponent": 3.0})
    )
    tables = []
    for settings in (plain, custom):
        publish_all(settings, rows, logits)
        tables.append(PAIRS.read(runs.run_stage(settings, "build_pairs").path).to_pylist())
    for before, after in zip(*tables, strict=True):
        assert before["target_chosen"] == before["p_chosen"]
        weight = (1 - after["similarity"]) ** 3
        assert after["target_chosen"] - 0.5 == pytest.approx(weight * (before["p_chosen"] - 0.5), abs=1e-9)
    broken = runs.experiment(tmp_path / "c", gate=CustomGate(function="nemo_sspo.objective.gates:absent"))
    publish_all(broken, rows, logits)
    with pytest.raises(UserError, match=r"gate\.function=nemo_sspo\.objective\.gates:absent: cannot be imported"):
        runs.run_stage(broken, "build_pairs")


def drop_last_score(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores.pop()


def score_twice(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores.append(scores[0])


def score_a_stranger(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores.append(scores[0] | {"prompt_id": "f" * 32})


def swap_responses(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores[1]["response_ids"] = scores[1]["response_ids"][::-1]


def forget_a_response(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores[1]["response_ids"] = scores[1]["response_ids"][:-1]


def ragged_logits(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores[1]["logits"] = [row[:2] for row in scores[1]["logits"]]


def a_row_of_the_next_prompt(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    """As many rows as there should be over both prompts."""
    scores[0]["logits"].append(scores[1]["logits"].pop(0))


def nan_logit(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    scores[1]["logits"][0][1] = float("nan")


def wrong_k(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    rows[1]["responses"].pop()


def drop_a_vector(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    del vectors[rows[1]["responses"][2]["response_id"]]


def nan_vector(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    vectors[rows[1]["responses"][2]["response_id"]] = np.full(4, np.nan)


def repeat_a_prompt(rows: list[dict], scores: list[dict], vectors: dict) -> None:
    rows.append(rows[1])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (drop_last_score, "no scores for prompt {1}"),
        (score_twice, "prompt {0} appears more than once"),
        (score_a_stranger, f"scores for prompt {'f' * 32}, which is not in"),
        (swap_responses, "the scores of prompt {1} are of other responses"),
        (forget_a_response, "prompt {1} has scores of 2 responses, expected 3"),
        (ragged_logits, "the logits of prompt {1} are not a 3 x 3 matrix"),
        (a_row_of_the_next_prompt, "the logits of prompt {0} are not a 3 x 3 matrix"),
        (nan_logit, "prompt {1} has logits that are not finite"),
        (wrong_k, "prompt {1} has 2 responses, the first prompt 3"),
        (drop_a_vector, "a response of prompt {1} is not embedded"),
        (nan_vector, "prompt {1}: an embedding is not finite"),
        (repeat_a_prompt, "prompt {1} appears more than once"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(
    tmp_path: Path, fault: Callable[[list[dict], list[dict], dict], None], message: str
) -> None:
    settings, rows = runs.experiment(tmp_path), runs.rollout_rows(TEXTS)
    scores, vectors = runs.score_rows(rows, logits_for([[2, 1, 0], [0, 3, 1]])), vectors_for(rows)
    ids = [row["prompt_id"] for row in rows]
    fault(rows, scores, vectors)
    runs.publish_rollout(settings, rows)
    runs.publish_scores(settings, scores)
    runs.publish_vectors(settings, vectors)
    with pytest.raises(UserError) as raised:
        runs.run_stage(settings, "build_pairs")
    assert message.format(*ids) in str(raised.value)


def test_a_prompt_in_two_shards_is_refused(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, rollout=Rollout(shards=2))
    rows = runs.rollout_rows(TEXTS)
    for shard in range(2):
        publish_all(settings, rows, logits_for([[2, 1, 0], [0, 3, 1]]), shard)
    with pytest.raises(UserError, match="is in more than one shard"):
        runs.run_stage(settings, "build_pairs")


def test_the_pairs_tell_by_which_oracle_and_encoder_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the model card, which knows neither artifact."""
    oracle, encoder = {"content of oracle.path": "a" * 32}, {"content of encoder.path": "b" * 32}
    config = {"score": oracle | {"oracle.path": "x"}, "embed": encoder}
    original = runs.publish

    def publish(final: Path, *, stage: str, **options: Any) -> AbstractContextManager[Draft]:
        return original(final, stage=stage, **options | {"config": config.get(stage, {})})

    monkeypatch.setattr(runs, "publish", publish)
    settings = runs.experiment(tmp_path)
    publish_all(settings, runs.rollout_rows(TEXTS), logits_for([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]))
    counts = runs.run_stage(settings, "build_pairs").manifest.counts
    assert {key: value for key, value in counts.items() if "." in key} == oracle | encoder


def test_a_pair_with_a_spelled_control_token_is_dropped_and_counted(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path)
    rows = runs.rollout_rows(TEXTS)
    publish_all(settings, rows, logits_for([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]))
    spelled = rows[0]["responses"][2]["response_id"]
    rollout = runs.RunLayout(settings.run_dir).artifact("rollout", 1, 0)
    (rollout / SPELLED).write_text(json.dumps({spelled: "<|user|>"}))
    artifact = runs.run_stage(settings, "build_pairs")
    assert artifact.manifest.counts["dropped_control_tokens"] == 1
    assert DROPPED.read(artifact.path).to_pylist() == [{"prompt_id": rows[0]["prompt_id"], "reason": "control_tokens"}]


def test_a_response_without_an_answer_is_empty_where_reasoning_is_left_out(tmp_path: Path) -> None:
    texts = [
        ["<think>a</think>yes", "<think>b</think>no", "<think>never"],
        ["<think>a</think>x", "<think>b</think>x", "y"],
    ]
    logits = logits_for([[2.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
    for judging, dropped in ((Judging(), {}), (Judging(reasoning="left_out"), {"empty", "identical_texts"})):
        settings = runs.experiment(tmp_path / judging.reasoning, judging=judging)
        rows = runs.rollout_rows(texts)
        publish_all(settings, rows, logits)
        artifact = runs.run_stage(settings, "build_pairs") if not dropped else None
        if artifact is not None:
            assert artifact.manifest.counts["pairs"] == 2
        else:
            with pytest.raises(UserError, match=r"no pair is left of 2 prompts .*'empty': 1"):
                runs.run_stage(settings, "build_pairs")


@pytest.mark.parametrize("symmetrize", ["half", "none"])
def test_where_all_comparisons_of_a_judge_tie_it_is_the_judge_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symmetrize: str
) -> None:
    """In few comparisons, which may be chance, the step that scores goes on; here no pair is left."""
    monkeypatch.setattr(judging_stage, "load_oracle", lambda *_: FormulaJudge(lambda row: -3.0))
    settings = runs.experiment(
        tmp_path, oracle=LlmJudgeOracle(model="m"), rollout=Rollout(shards=2), pairs=Pairs(symmetrize=symmetrize)
    )
    for shard in range(2):
        rows = runs.rollout_rows([["x", "yy", "zzz"]], name=f"{shard}")
        runs.publish_rollout(settings, rows, shard=shard)
        runs.run_stage(settings, "score", shard=shard)
        runs.publish_vectors(settings, vectors_for(rows), shard)
    with pytest.raises(UserError, match=r"^oracle\.model=m: a tie in each of 6 comparisons .* shown second, whichever"):
        runs.run_stage(settings, "build_pairs")
