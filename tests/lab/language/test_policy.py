"""The lab's policies: sampling and scoring agree, whatever stands beside a row."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import torch
from transformers import LlamaForCausalLM

from nemo_sspo.lab.language.policy import (
    ANSWER,
    END,
    MOST_TOKENS,
    Recipe,
    Row,
    answer_of,
    forward,
    prompt_ids,
    row_of,
    sample,
    starting_policy,
)
from nemo_sspo.lab.language.world import World, all_sentences


@pytest.fixture(scope="module")
def policy() -> LlamaForCausalLM:
    return starting_policy(World.draw(1), Recipe(rows=2048, epochs=2))


def test_log_probs_are_those_of_one_row_alone(policy: LlamaForCausalLM) -> None:
    rows = [row_of(*given) for given in World.draw(1).teach(5)]
    with torch.no_grad():
        together, states = forward(policy, rows), forward(policy, rows[:1])
        for index, row in enumerate(rows):
            ids = torch.tensor([row.prompt + row.response])
            logps = policy(ids).logits.log_softmax(-1)[0]
            expected = sum(logps[at - 1, ids[0, at]] for at in range(len(row.prompt), ids.shape[1]))
            torch.testing.assert_close(together.logps_B[index], expected, rtol=1e-5, atol=1e-5)
        own = policy.model(torch.tensor([rows[0].prompt + rows[0].response])).last_hidden_state[0]
    torch.testing.assert_close(states.last_BH[0], own[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states.mean_BH[0], own[len(rows[0].prompt) :].mean(0), rtol=1e-4, atol=1e-5)


def test_samples_are_drawn_from_the_policy(policy: LlamaForCausalLM) -> None:
    """First tokens come as often as their probabilities say."""
    prompt, count = World.draw(1).prompts[0].text, 4000
    (responses,) = sample(policy, [prompt], count, torch.Generator().manual_seed(0))
    with torch.no_grad():
        probability = policy(torch.tensor([prompt_ids(prompt)])).logits[0, -1].softmax(-1)
    seen = torch.bincount(torch.tensor([response[0] for response in responses]), minlength=len(probability)) / count
    assert (seen - probability).abs().max() < 4 * (0.25 / count) ** 0.5


def test_samples_end_once(policy: LlamaForCausalLM) -> None:
    prompts = [prompt.text for prompt in World.draw(1).prompts[:20]]
    for row in sample(policy, prompts, 3, torch.Generator().manual_seed(0)):
        for response in row:
            assert END not in response[:-1]
            assert response[-1] == END or len(response) == MOST_TOKENS


def test_a_sentence_survives_its_ids() -> None:
    said = next(iter(all_sentences()))
    assert answer_of(row_of("tell me", said).response) == said
    assert answer_of([ANSWER, END]) not in all_sentences()


def test_the_teacher_is_followed(policy: LlamaForCausalLM) -> None:
    rows = [row_of(*given) for given in World.draw(1).teach(64)]
    shuffled = [Row(row.prompt, [*row.response[-2::-1], END]) for row in rows]
    with torch.no_grad():
        assert forward(policy, rows).logps_B.mean() > forward(policy, shuffled).logps_B.mean() + 10
