"""What every oracle must hold, whatever it is made of: the stages rely on it."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from nemo_sspo.config.oracles import (
    FunctionOracle,
    LlmJudgeOracle,
    Oracle,
    PairRMOracle,
    PolicyJudgeOracle,
    RewardModelOracle,
)
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import OracleResources, PreferenceOracle, Row
from nemo_sspo.oracle.registry import ORACLES, load_oracle
from nemo_sspo.stages.sampling.score import ScoreSums, score_window
from tests.oracle.judge_server import TEMPLATE, JudgeServer, with_logprobs
from tests.oracle.tiny_pairrm import CANDIDATE_MAX, SOURCE_MAX
from tests.oracle.tiny_reward_model import make_chat_model
from tests.stages.runs import rollout_rows

LONG = "The quick brown fox jumps over the lazy dog. " * 30
TEXTS = [
    ["Use sorted().", "", "今日は良い天気です 😀", LONG, "Use sorted()."],
    ["No.", "naïve café", " ", "{first} [SEP] </response_A>", "Yes, and a little more."],
]
ROWS = [Row(f"p{n}", a, b) for n, texts in enumerate(TEXTS) for a, b in itertools.permutations(texts, 2)]
TOLERANCE = 2e-5
"""Of models in float32, whose sums depend on the shape of a batch."""


@dataclass
class Case:
    """An oracle under test, and how to make it again."""

    settings: Oracle
    resources: OracleResources = field(default_factory=OracleResources)
    smaller_batches: dict[str, Any] = field(default_factory=dict)
    """Settings that change how rows are computed and must not change what they are."""
    cuts: bool = True
    """Whether it is cut off from a part of `LONG`; False for an oracle that sees everything."""

    def load(self, **changes: object) -> PreferenceOracle:
        return load_oracle(self.settings.model_copy(update=changes), self.resources)


def by_length(prompt: str, first: str, second: str) -> dict[str, Any]:
    """A server's judgement: length, prompt, and a bias to the place shown first."""
    logit = math.tanh((len(first) - len(second)) / 50) + len(prompt) / 10 + 0.1
    return with_logprobs(A=-math.log1p(math.exp(-logit)), B=-math.log1p(math.exp(logit)))


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with JudgeServer(by_length) as running:
        yield running


def pairrm(root: Path, request: pytest.FixtureRequest) -> Case:
    path = request.getfixturevalue("checkpoints")["hf"]
    limits = {"source_max_tokens": SOURCE_MAX, "candidate_max_tokens": CANDIDATE_MAX}
    return Case(PairRMOracle(path=str(path), **limits), smaller_batches={"batch_tokens": 1})


def reward_model(root: Path, request: pytest.FixtureRequest) -> Case:
    path = make_chat_model(root / "reward")
    return Case(RewardModelOracle(path=str(path)), smaller_batches={"batch_tokens": 1})


def llm_judge(root: Path, request: pytest.FixtureRequest) -> Case:
    pytest.importorskip("openai")
    (root / "template.txt").write_text(TEMPLATE)
    settings = LlmJudgeOracle(
        endpoint=request.getfixturevalue("server").url,
        model="m",
        api_key_variable=None,
        template=str(root / "template.txt"),
        text_max_characters=200,
    )
    return Case(settings, smaller_batches={"concurrency": 1})


def policy_judge(root: Path, request: pytest.FixtureRequest) -> Case:
    pytest.importorskip("vllm")
    from nemo_sspo.config.engines import VllmEngine
    from nemo_sspo.rollout.policy_answers import PolicyAnswers
    from tests.rollout.tiny_policy import make_policy

    (root / "template.txt").write_text("{prompt}|{first}|{second}|A or B?")
    policy = str(make_policy(root / "policy"))
    loaded: list[PolicyAnswers] = []

    def open_policy(answers: Sequence[str], longest: int) -> PolicyAnswers:
        if not loaded:
            engine = VllmEngine(max_num_seqs=16)
            loaded.append(PolicyAnswers(policy, engine, seed=0, answers=answers, longest=longest))
        return loaded[0]

    settings = PolicyJudgeOracle(template=str(root / "template.txt"), context_tokens=200)
    return Case(settings, OracleResources(open_policy=open_policy))


def function(root: Path, request: pytest.FixtureRequest) -> Case:
    return Case(FunctionOracle(function="tests.oracle.function_oracle:prefers_length"), cuts=False)


CASES: dict[str, Callable[[Path, pytest.FixtureRequest], Case]] = {
    "pairrm": pairrm,
    "reward_model": reward_model,
    "llm_judge": llm_judge,
    "policy_judge": policy_judge,
    "function": function,
}


@pytest.fixture(scope="module", params=sorted(ORACLES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every registered oracle; one without a case here fails."""
    return CASES[request.param](tmp_path_factory.mktemp(request.param), request)


@pytest.fixture(scope="module")
def logits(case: Case) -> np.ndarray:
    """Of all rows in one call."""
    judged = case.load().compare(ROWS).logits_R
    assert judged.std() > 1e-3, "an oracle that finds all alike would pass anything"
    return judged


def test_the_order_in_a_row_decides_and_not_the_order_of_the_rows(case: Case, logits: np.ndarray) -> None:
    """Of every pair the same two logits come back whichever of its rows is asked first, each at its own row.

    They are two: an oracle that ignored which response stands first would find every pair equal.
    """
    swapped = [Row(prompt, second, first) for prompt, first, second, _ in ROWS]
    expected = logits[[ROWS.index(row) for row in swapped]]
    np.testing.assert_allclose(case.load().compare(swapped).logits_R, expected, atol=TOLERANCE)
    assert (logits - expected).std() > 1e-3


def test_a_second_time_and_a_second_oracle_say_the_same(case: Case, logits: np.ndarray) -> None:
    oracle = case.load()
    np.testing.assert_array_equal(oracle.compare(ROWS).logits_R, oracle.compare(ROWS).logits_R)
    np.testing.assert_allclose(case.load().compare(ROWS).logits_R, logits, atol=TOLERANCE)


def test_a_row_does_not_depend_on_its_neighbours(case: Case, logits: np.ndarray) -> None:
    oracle = case.load(**case.smaller_batches)
    np.testing.assert_allclose(oracle.compare(ROWS[::-1]).logits_R[::-1], logits, atol=TOLERANCE)
    for index in (0, 13, 25, 39):
        np.testing.assert_allclose(oracle.compare([ROWS[index]]).logits_R, logits[[index]], atol=TOLERANCE)


def test_equal_responses_score_as_one(case: Case, logits: np.ndarray) -> None:
    """Response 0 and response 4 of the first prompt are the same text."""
    judged = dict(zip(itertools.permutations(range(5), 2), logits[:20], strict=True))
    for other in (1, 2, 3):
        assert judged[0, other] == judged[4, other]
        assert judged[other, 0] == judged[other, 4]
    preferences = case.load().compare(ROWS)
    assert preferences.unique_rows == len(set(ROWS)) < len(ROWS)


def test_odd_texts_are_judged_and_cut_ones_are_told(case: Case, logits: np.ndarray) -> None:
    """Empty, blank, Unicode, markup and over-long responses all get a number."""
    assert np.isfinite(logits).all()
    truncated = case.load().compare(ROWS).truncated_R
    np.testing.assert_array_equal(truncated, [case.cuts and LONG in row for row in ROWS])


def test_progress_grows_to_the_number_of_rows(case: Case) -> None:
    done: list[int] = []
    case.load().compare([*ROWS, Row("new", "a", "bb")], done.append)
    assert done == sorted(done)
    assert done[-1] == len(ROWS) + 1


def test_an_oracle_of_the_second_attempt_agrees_with_the_first(case: Case, tmp_path: Path) -> None:
    """A step that is killed after some windows and started again gives what an undisturbed one gives."""
    resources = replace(case.resources, journal=tmp_path / "judgements" / "step.jsonl")
    whole = load_oracle(case.settings, case.resources).compare(ROWS).logits_R
    load_oracle(case.settings, resources).compare(ROWS[:7])
    again = load_oracle(case.settings, resources)
    np.testing.assert_allclose(again.compare(ROWS).logits_R, whole, atol=TOLERANCE)


def test_a_model_that_is_broken_is_refused_with_the_prompt(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: one prompt's logits become NaN or infinite on their way out of the oracle."""
    rows = rollout_rows([texts[:2] for texts in TEXTS])
    for broken in (np.nan, np.inf):
        oracle = case.load()
        compare = oracle.compare

        def plant(asked: Sequence[Row], on_progress: Any, compare: Any = compare, broken: float = broken) -> Any:
            preferences = compare(asked, on_progress)
            logits_R = preferences.logits_R.copy()
            logits_R[[row.prompt == "1" for row in asked]] = broken
            return replace(preferences, logits_R=logits_R)

        monkeypatch.setattr(oracle, "compare", plant)
        with pytest.raises(UserError, match=f"prompt {rows[1]['prompt_id']}: the oracle's logits are not finite"):
            score_window(rows, oracle, ScoreSums())
