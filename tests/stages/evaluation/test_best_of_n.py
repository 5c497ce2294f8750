"""Best-of-n by hand: what is picked, how ties fall, what it is compared with, and that it is sampled and counted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.artifacts.tables import BEST_OF_N
from nemo_sspo.config.stages import Evaluation, Rollout, Selection
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.oracle import planned_comparisons
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.oracle.protocol import Preferences
from nemo_sspo.stages.evaluation import evaluate
from nemo_sspo.stages.evaluation.best_of_n import best_of_n, pick
from nemo_sspo.stages.sampling import rollout
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle


def longer(row) -> float:
    """Prefers length, whatever it is shown first by 0.7."""
    return len(row.first) - len(row.second) + 0.7


def evaluated(tmp_path: Path, texts: list[list[str]], base: list[list[str]], **evaluation: object):
    settings = runs.experiment(tmp_path, evaluation=Evaluation(**evaluation))
    runs.publish_rollout(settings, runs.rollout_rows(base), "rollout_held_out", 0)
    runs.publish_rollout(settings, runs.rollout_rows(texts), "rollout_held_out", 1)
    return runs.run_stage(settings, "evaluate")


def test_the_longest_of_n_meets_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth sample is longer still, but only four of five are asked for."""
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(longer))
    texts = [["a", "bb", "cccc", "d", "eeeeee"]]
    artifact = evaluated(tmp_path, texts, [["x", "yyy"]], best_of_n=4)
    (row,) = BEST_OF_N.read(artifact.path).to_pylist()
    assert row["response_id"] == runs.rollout_rows(texts)[0]["responses"][2]["response_id"]
    assert row["win_vs_base"] == pytest.approx(np.mean(sigmoid(np.array([3.0, 1.0]))))
    counts = artifact.manifest.counts
    assert counts["best_of_n"] == 4
    assert counts["best_of_n_win_vs_base"] == counts["best_of_n_win_vs_base_low"] == row["win_vs_base"]
    assert counts["best_of_n_mean_tokens"] == 5  # four characters and the end token
    # The other win rates take the first two samples, as many as rollout.held_out_samples_per_prompt.
    assert counts["win_vs_base"] == pytest.approx(np.mean(sigmoid(np.array([0.0, -2.0, 1.0, -1.0]))))
    assert counts["new_mean_tokens"] == 2.5


def test_the_interval_covers_the_mean_and_shrinks_with_confidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(longer))
    lengths = np.random.default_rng(0).integers(1, 6, size=(40, 3))
    texts, base = [["x" * n for n in row] for row in lengths], [["yyy"]] * 40
    widths = []
    for confidence in (0.5, 0.99):
        counts = evaluated(tmp_path / f"{confidence}", texts, base, best_of_n=3, confidence=confidence).manifest.counts
        low, mean, high = (counts[f"best_of_n_win_vs_base{end}"] for end in ("_low", "", "_high"))
        assert mean == pytest.approx(sigmoid(lengths.max(axis=1) - 3.0).mean())
        assert low < mean < high
        widths.append(high - low)
    assert widths[0] < widths[1]


def test_without_the_setting_nothing_of_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = FormulaOracle(longer)
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: oracle)
    artifact = evaluated(tmp_path, [["a", "bb"]], [["x"]])
    assert not (artifact.path / BEST_OF_N.file).exists()
    assert not any(name.startswith("best_of_n") for name in artifact.manifest.counts)
    assert len(oracle.asked) == 2 * 1 * 2  # new x base, two orders


def test_too_few_samples_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_oracle", lambda *_: FormulaOracle(longer))
    with pytest.raises(UserError, match=r"evaluation\.best_of_n=3: .*iter_1/rollout_held_out.* holds 2 samples"):
        evaluated(tmp_path, [["a", "bb"]], [["x"]], best_of_n=3)


def test_ties_fall_to_the_smallest_index_and_an_intransitive_oracle_is_averaged() -> None:
    equal = np.zeros((1, 6), dtype=np.float32)
    assert pick(equal, ["p"]).tolist() == [0]
    # Rows (0,1) (0,2) (1,0) (1,2) (2,0) (2,1). 0 loses narrowly to 1 and beats 2 clearly; 1 loses narrowly to 2.
    cycle = np.array([[-0.1, 5.0, 0.1, -0.1, -5.0, 0.1]], dtype=np.float32)
    assert pick(cycle, ["p"]).tolist() == [0]
    with pytest.raises(UserError, match="prompt q: the oracle's logits are not finite"):
        pick(np.array([[0.0, 1.0], [np.inf, 0.0]], dtype=np.float32), ["p", "q"])


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=6, unique=True), st.floats(-5, 5, width=32))
def test_a_bradley_terry_oracle_picks_its_best_whatever_it_is_shown_first(scores: list[float], bias: float) -> None:
    """With logits s_i - s_j + bias the pick is the sample of the highest score: both orders cancel the bias."""
    rows = [scores[i] - scores[j] + bias for i in range(len(scores)) for j in range(len(scores)) if i != j]
    gaps = np.diff(np.sort(scores))
    if gaps.min() > 1e-3:  # closer ones drown in float32
        assert pick(np.array([rows], dtype=np.float32), ["p"]).tolist() == [int(np.argmax(scores))]


def test_facts_of_both_rounds_are_summed_and_progress_reaches_the_end() -> None:
    class Paying(FormulaOracle):
        def compare(self, rows, on_progress=lambda done: None):
            found = super().compare(rows, on_progress)
            return Preferences(found.logits_R, found.truncated_R, found.unique_rows, {"tokens": len(rows)})

    from nemo_sspo.stages.evaluation.best_of_n import Sample

    samples = {"p": [Sample("0", "a", 1), Sample("1", "bb", 2), Sample("2", "c", 1)]}
    seen = []
    found = best_of_n(
        Paying(longer),
        {"p": {"prompt": "p", "messages": []}},
        samples,
        {"p": ["x", "y"]},
        lambda *at: seen.append(at),
    )
    assert found.facts == Counter(tokens=3 * 2 + 2 * 2)
    assert [sample.text for sample in found.picked] == ["bb"]
    assert seen[-1] == (10, 10)


@pytest.mark.parametrize(
    ("iteration", "best_of", "expected"), [(1, 16, 16), (1, 2, 3), (1, None, 3), (0, 16, 3)], ids=str
)
def test_as_many_are_sampled_as_are_needed_and_of_the_base_no_more(
    tmp_path: Path, iteration: int, best_of: int | None, expected: int
) -> None:
    class Context:
        experiment = runs.experiment(
            tmp_path, rollout=Rollout(held_out_samples_per_prompt=3), evaluation=Evaluation(best_of_n=best_of)
        )
        stage = "rollout_held_out"

    Context.iteration = iteration
    assert rollout.sampling_of(Context).samples == expected


def test_the_price_of_an_oracle_counts_it(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "p{n}"}}\n' for n in range(300)))
    without, with_it = (
        planned_comparisons(
            runs.experiment(tmp_path, prompts=str(prompts), iterations=2, evaluation=Evaluation(best_of_n=n))
        )
        for n in (None, 4)
    )
    assert with_it - without == 2 * 200 * (4 * 3 + 2 * 2)


@pytest.mark.parametrize(("iterations", "meetings"), [(1, 1), (2, 3), (3, 6)])
def test_the_price_of_an_oracle_counts_every_earlier_policy(tmp_path: Path, iterations: int, meetings: int) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "p{n}"}}\n' for n in range(206)))
    settings = runs.experiment(
        tmp_path,
        prompts=str(prompts),
        iterations=iterations,
        rollout=Rollout(samples_per_prompt=2, held_out_samples_per_prompt=3),
    )
    assert planned_comparisons(settings) == 6 * 2 + meetings * 200 * 3 * 3 * 2


def test_the_price_of_an_oracle_counts_the_choice_of_the_checkpoint(tmp_path: Path) -> None:
    """Of 216 prompts 200 are held out and 10 to choose by: in both iterations 3 candidates meet one policy there."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "p{n}"}}\n' for n in range(216)))
    settings = runs.experiment(
        tmp_path,
        prompts=str(prompts),
        iterations=2,
        rollout=Rollout(samples_per_prompt=2, held_out_samples_per_prompt=3),
        selection=Selection(candidates=3, prompts=10),
    )
    assert planned_comparisons(settings) == 6 * 2 + 3 * 200 * 3 * 3 * 2 + 2 * 3 * 10 * 3 * 3 * 2
