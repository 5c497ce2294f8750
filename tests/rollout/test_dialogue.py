"""Conversations of several turns, with an engine that answers by formula."""

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from nemo_sspo.rollout.dialogue import Dialogue, Reply, hold_dialogues, longest_dialogue
from nemo_sspo.rollout.protocol import Completion, Sampling
from nemo_sspo.rollout.tokenizer import context_tokens, load_policy_tokenizer, prompt_token_ids

END = 5


class Echo:
    """Answers with the number of tokens it was given; remembers the calls."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer, self.calls = tokenizer, []

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_progress) -> list[list[Completion]]:
        self.calls.append((sampling.temperature, [self.tokenizer.decode(prompt) for prompt in prompts]))
        on_progress(len(prompts))
        texts = [self.tokenizer.encode(f"seen {len(prompt)}", add_special_tokens=False) for prompt in prompts]
        return [[Completion([*text, END], [0.0] * (len(text) + 1), "stop")] for text in texts]


@pytest.fixture
def tokenizer(policy: Path):
    return load_policy_tokenizer(str(policy))


def hold(engine: Echo, dialogues: list[Dialogue], longest: int = 256, **more) -> list[list[Reply]]:
    return hold_dialogues(engine, engine.tokenizer, dialogues, top_p=1.0, max_tokens=8, max_model_len=longest, **more)


def test_the_second_turn_follows_the_answer_to_the_first(tokenizer) -> None:
    engine, done = Echo(tokenizer), []
    hot, cold = Dialogue(("Hi", "More?"), 0.7), Dialogue(("Sort.",), 0.0)
    replies = hold(engine, [hot, cold, hot], on_progress=done.append)
    first = prompt_token_ids(tokenizer, [{"role": "user", "content": "Hi"}])
    assert [temperature for temperature, _ in engine.calls] == [0.0, 0.7, 0.7], "dialogues of one temperature together"
    assert (
        engine.calls[2][1]
        == [f"<s><|user|>Hi<|end|><|assistant|>seen {len(first)}<|end|><|user|>More?<|end|><|assistant|>"] * 2
    )
    assert [len(turns) for turns in replies] == [2, 1, 2]
    assert replies[0][0] == Reply(f"seen {len(first)}", len(replies[0][0].text) + 1, "stop")
    assert replies[0] == replies[2]
    assert (done[-1], done) == (5, sorted(done))


def test_a_conversation_that_fills_the_context_is_left_empty_and_told(tokenizer) -> None:
    engine = Echo(tokenizer)
    long, short = Dialogue(("Hi", "x" * 300, "And?"), 0.0), Dialogue(("Hi", "More?", "And?"), 0.0)
    replies = hold(engine, [long, short], longest=120)
    assert [reply.finish_reason for reply in replies[0]] == ["stop", "no room", "no room"]
    assert replies[0][1].text == ""
    assert [reply.finish_reason for reply in replies[1]] == ["stop"] * 3
    assert [len(prompts) for _, prompts in engine.calls] == [2, 1, 1]


def test_the_longest_dialogue_bounds_every_prompt(tokenizer, policy: Path) -> None:
    engine = Echo(tokenizer)
    dialogues = [Dialogue(("Hi", "More?"), 0.0), Dialogue(("Hello there",), 0.0)]
    longest, firsts = longest_dialogue(tokenizer, dialogues, max_tokens=8)
    hold(engine, dialogues)
    assert firsts == [len(tokenizer.encode(text, add_special_tokens=False)) for text in engine.calls[0][1]]
    last = len(tokenizer.encode(engine.calls[1][1][0], add_special_tokens=False))
    assert last + 8 <= longest
    assert context_tokens(str(policy)) == 2560
