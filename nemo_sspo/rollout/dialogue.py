"""Conversations of several turns: the policy's own answer to one turn stands before the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from nemo_sspo.rollout.protocol import RolloutEngine, Sampling
from nemo_sspo.rollout.tokenizer import prompt_token_ids, response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_ROOM = "no room"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The user's turns, and how the answers are sampled."""

    turns: tuple[str, ...]
    temperature: float


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one turn."""

    text: str
    tokens: int
    finish_reason: str
    """``stop``, ``length``, or ``no room``: the conversation before it fills the context, and the text is empty."""


def hold_dialogues(
    engine: RolloutEngine,
    tokenizer: "PreTrainedTokenizerBase",
    dialogues: Sequence[Dialogue],
    *,
    top_p: float,
    max_tokens: int,
    max_model_len: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[list[Reply]]:
    """One reply to each turn of each dialogue.

    A turn is generated for all dialogues before the next one, dialogues of one temperature together. The texts of
    earlier turns go through the chat template again, as a judge and a user would read them.
    """
    replies: list[list[Reply]] = [[] for _ in dialogues]
    done = 0
    for turn in range(max(len(dialogue.turns) for dialogue in dialogues)):
        prompts = {}
        for index, dialogue in enumerate(dialogues):
            if turn >= len(dialogue.turns):
                continue
            token_ids = prompt_token_ids(tokenizer, _messages(dialogue, replies[index]))
            if len(token_ids) < max_model_len:
                prompts[index] = token_ids
            else:
                replies[index].append(Reply("", 0, NO_ROOM))
                done += 1
        by_temperature = sorted(prompts, key=lambda index: (dialogues[index].temperature, index))
        for temperature, group in groupby(by_temperature, key=lambda index: dialogues[index].temperature):
            indices = list(group)
            sampling = Sampling(samples=1, temperature=temperature, top_p=top_p, max_tokens=max_tokens)
            completions = engine.generate([prompts[index] for index in indices], sampling, _after(done, on_progress))
            for index, (completion,) in zip(indices, completions, strict=True):
                text = response_text(tokenizer, completion.token_ids, stopped=completion.finish_reason == "stop")
                replies[index].append(Reply(text, len(completion.token_ids), completion.finish_reason))
            done += len(indices)
            on_progress(done)
    return replies


def longest_dialogue(
    tokenizer: "PreTrainedTokenizerBase", dialogues: Sequence[Dialogue], max_tokens: int
) -> tuple[int, list[int]]:
    """Upper bound of a dialogue's tokens, and the tokens of each first prompt."""
    firsts = [len(prompt_token_ids(tokenizer, _messages(dialogue, []))) for dialogue in dialogues]
    silent = [
        len(prompt_token_ids(tokenizer, _messages(dialogue, [Reply("", 0, "stop")] * (len(dialogue.turns) - 1))))
        + len(dialogue.turns) * max_tokens
        for dialogue in dialogues
    ]
    return max(silent), firsts


def _after(done: int, on_progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda count: on_progress(done + count)


def _messages(dialogue: Dialogue, replies: Sequence[Reply]) -> list[dict[str, str]]:
    messages = []
    for said, reply in zip(dialogue.turns, replies, strict=False):
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": reply.text}]
    return [*messages, {"role": "user", "content": dialogue.turns[len(replies)]}]
