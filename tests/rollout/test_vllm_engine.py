"""Real vLLM on a tiny policy, against the same policy in transformers."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from transformers import AutoModelForCausalLM
from vllm import LLM

from nemo_sspo.config.engines import VllmEngine as VllmSettings
from nemo_sspo.errors import UserError
from nemo_sspo.rollout.protocol import Completion, Sampling
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, response_text
from nemo_sspo.rollout.vllm_engine import VllmEngine
from tests.rollout.tiny_engine import WARM, ignore, start


@pytest.fixture(scope="module")
def engine(policy: Path) -> VllmEngine:
    return start(policy, seed=7)


@pytest.fixture(scope="module")
def completions(engine: VllmEngine, prompts: list[list[int]]) -> list[list[Completion]]:
    """The same whatever the engine sampled before."""
    engine.begin(7)
    done: list[int] = []
    result = engine.generate(prompts, WARM, done.append)
    assert done[-1] == len(prompts)
    assert done == sorted(done)
    return result


def test_progress_counts_finished_prompts_however_long_adding_them_takes(
    engine: VllmEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second passes between any two looks of a progress bar at the clock: none is left out as too frequent."""
    seconds = count()
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(seconds)))
    done: list[int] = []
    engine.generate(prompts, WARM, done.append)
    assert done == sorted(done)
    assert done[-1] == len(prompts)


def raw_logprobs(policy: Path, prompt: list[int], completion: Completion) -> np.ndarray:
    """Log-probs of the response's tokens by transformers, at temperature 1 over the whole vocabulary."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    ids = torch.tensor([prompt + completion.token_ids])
    with torch.inference_mode():
        logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return logprobs[torch.arange(len(completion.token_ids)), completion.token_ids].numpy()


def test_logprobs_are_the_policys_own_whatever_the_sampling(
    policy: Path, prompts: list[list[int]], completions: list[list[Completion]]
) -> None:
    for prompt, responses in zip(prompts[:4], completions[:4], strict=True):
        for completion in responses[:2]:
            expected = raw_logprobs(policy, prompt, completion)
            np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)
            assert expected.std() > 0.1, "a uniform policy would not tell temperatures apart"


def test_a_response_ends_with_a_stop_token_or_at_the_limit(completions: list[list[Completion]]) -> None:
    stops, reasons = {2, 5}, []
    for completion in (c for responses in completions for c in responses):
        *body, last = completion.token_ids
        reasons.append((completion.finish_reason, last))
        assert not stops & set(body)
        if completion.finish_reason == "stop":
            assert last in stops
        else:
            assert completion.finish_reason == "length"
            assert last not in stops
            assert len(completion.token_ids) == WARM.max_tokens
    assert {reason for reason, _ in reasons} == {"stop", "length"}
    assert {last for reason, last in reasons if reason == "stop"} == stops, "both stop tokens end responses"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_follow_the_policy(
    policy: Path, engine: VllmEngine, prompts: list[list[int]], temperature: float
) -> None:
    """Mean log-prob of 2000 first tokens is that of the policy's distribution at the temperature, within 4 sigma."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([prompts[0]])).logits[0, -1].double()
    raw, weights = logits.log_softmax(dim=-1), (logits / temperature).softmax(dim=-1)
    mean = float((weights * raw).sum())
    sigma = float((weights * (raw - mean).square()).sum().sqrt()) / 2000**0.5
    sampling = Sampling(samples=2000, temperature=temperature, top_p=1.0, max_tokens=1)
    (responses,) = engine.generate(prompts[:1], sampling, ignore)
    assert np.mean([completion.logprobs[0] for completion in responses]) == pytest.approx(mean, abs=4 * sigma)


def test_a_prompt_is_one_request_the_longest_first(
    engine: VllmEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    generate = LLM.generate

    def record(llm, requests, parameters, **options):
        sent.append((llm, [len(request["prompt_token_ids"]) for request in requests], parameters))
        return generate(llm, requests, parameters, **options)

    monkeypatch.setattr(LLM, "generate", record)
    found = engine.generate(prompts, WARM, ignore)
    ((llm, lengths, parameters),) = sent
    assert lengths == sorted(map(len, prompts), reverse=True)
    assert (parameters.n, parameters.seed) == (WARM.samples, None)
    assert [len(responses) for responses in found] == [WARM.samples] * len(prompts)
    assert llm.llm_engine.vllm_config.cache_config.enable_prefix_caching


def test_text_has_no_special_tokens(policy: Path) -> None:
    tokenizer = load_policy_tokenizer(str(policy))
    ids = tokenizer("sort a list", add_special_tokens=False)["input_ids"]
    assert response_text(tokenizer, [*ids, 5], stopped=True) == "sort a list"
    assert response_text(tokenizer, ids, stopped=False) == "sort a list"
    assert response_text(tokenizer, [2], stopped=True) == ""


def test_a_sequence_beyond_the_models_positions_is_refused(policy: Path) -> None:
    with pytest.raises(UserError, match="vLLM refuses it"):
        VllmEngine(str(policy), VllmSettings(), seed=0, max_model_len=4096, stop_token_ids=[2])
