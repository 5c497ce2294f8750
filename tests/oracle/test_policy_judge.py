"""The policy as its own judge: its choice in vLLM is the one transformers computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.config.oracles import PolicyJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.judge.policy_judge import PolicyJudge
from nemo_sspo.oracle.judge.question import ANSWERS
from nemo_sspo.oracle.protocol import OracleResources, Row
from nemo_sspo.rollout.policy_answers import PolicyAnswers
from tests.rollout.tiny_policy import make_policy

CONTEXT = 120
ROWS = [Row("q", "Sort a list", "old town"), Row("q", "old town", "Sort a list"), Row("Tell me", "", "Über 😀")]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def answers(policy: Path) -> PolicyAnswers:
    return PolicyAnswers(str(policy), VllmEngine(max_num_seqs=8), seed=0, answers=ANSWERS, longest=CONTEXT)


@pytest.fixture
def judge(answers: PolicyAnswers, tmp_path: Path) -> Callable[[int], PolicyJudge]:
    """Makes a judge of the policy for a length of context."""
    template = tmp_path / "question.txt"
    template.write_text("{prompt}? A: {first} B: {second}")

    def make(context_tokens: int) -> PolicyJudge:
        settings = PolicyJudgeOracle(template=str(template), context_tokens=context_tokens)
        return PolicyJudge(settings, OracleResources(open_policy=lambda *_: answers))

    return make


def test_the_logit_is_that_of_the_next_token_in_transformers(judge: Callable[[int], PolicyJudge], policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    spellings = {answer: tokenizer.convert_tokens_to_ids([answer]) for answer in ("A", "B")}
    expected = []
    for row in ROWS:
        text = f"<s><|user|>{row.prompt}? A: {row.first} B: {row.second}<|end|><|assistant|>"
        ids = tokenizer.encode(text, add_special_tokens=False)
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)
        first, second = (float(logprobs[tokens].logsumexp(dim=0)) for tokens in spellings.values())
        expected.append(first - second)
    assert np.std(expected) > 0.01, "a policy without preferences would agree with anything"
    np.testing.assert_allclose(judge(CONTEXT).compare(ROWS).logits_R, expected, atol=2e-4)


def test_a_long_question_is_cut_to_the_context_longest_text_first(
    judge: Callable[[int], PolicyJudge], answers: PolicyAnswers, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    logprobs = answers.answer_logprobs
    monkeypatch.setattr(
        answers, "answer_logprobs", lambda questions, report: asked.extend(questions) or logprobs(questions, report)
    )
    preferences = judge(CONTEXT).compare([Row("q", "x" * 400, "short"), ROWS[0]])
    assert preferences.truncated_R.tolist() == [True, False]
    assert 0.8 * CONTEXT < len(asked[0]) <= CONTEXT
    text = AutoTokenizer.from_pretrained(policy).decode(asked[0])
    assert "B: short" in text
    assert "x" * 20 in text


def test_a_question_longer_than_the_context_is_refused(judge: Callable[[int], PolicyJudge]) -> None:
    with pytest.raises(UserError, match=r"oracle\.context_tokens=5: the question alone is longer"):
        judge(5).compare(ROWS)


def test_without_a_policy_there_is_no_judge() -> None:
    with pytest.raises(UserError, match="judges with the policy of a run"):
        PolicyJudge(PolicyJudgeOracle())
