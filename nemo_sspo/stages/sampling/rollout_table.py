"""The rows of a rollouts table, and the facts of its responses."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.facts.sampling import ResponseFacts
from nemo_sspo.artifacts.sources.prompts import Message
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.errors import UserError
from nemo_sspo.rollout.protocol import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def conversation_text(messages: Sequence[Message]) -> str:
    """What the oracle sees of a prompt: a single message as it is, several with the speaker's name before each."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def rollout_table(
    prompts: pa.Table, completions: Sequence[Sequence[Completion]], tokenizer: "PreTrainedTokenizerBase"
) -> pa.Table:
    """One row per prompt. A response's id is the hash of its prompt and its tokens: equal responses share one."""
    rows = []
    for prompt, responses in zip(prompts.to_pylist(), completions, strict=True):
        rows.append(
            {
                "prompt_id": prompt["prompt_id"],
                "prompt": conversation_text(prompt["messages"]),
                "messages": prompt["messages"],
                "prompt_token_ids": prompt["prompt_token_ids"],
                "responses": [_response(prompt["prompt_id"], completion, tokenizer) for completion in responses],
            }
        )
    return ROLLOUTS.of(rows)


def _response(prompt_id: str, completion: Completion, tokenizer: "PreTrainedTokenizerBase") -> dict:
    from nemo_sspo.rollout.tokenizer import response_text

    if not all(map(math.isfinite, completion.logprobs)):
        raise UserError(f"prompt {prompt_id}: a log-prob of a response is not finite; is the policy whole?")
    stopped = completion.finish_reason == "stop"
    return {
        "response_id": content_id(prompt_id, completion.token_ids),
        "text": response_text(tokenizer, completion.token_ids, stopped=stopped),
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "finish_reason": completion.finish_reason,
    }


def response_facts(table: pa.Table) -> ResponseFacts:
    """The facts of a rollouts table."""
    responses = table.column("responses").combine_chunks().flatten()
    texts, reasons = responses.field("text").to_pylist(), responses.field("finish_reason").to_pylist()
    tokens = len(responses.field("token_ids").flatten())
    distinct = sum(len(set(texts_of_prompt)) for texts_of_prompt in _grouped(texts, len(texts) // table.num_rows))
    return ResponseFacts(
        prompts=table.num_rows,
        responses=len(texts),
        tokens=tokens,
        mean_tokens=tokens / len(texts),
        unfinished=reasons.count("length"),
        empty=sum(not text.strip() for text in texts),
        duplicates=len(texts) - distinct,
    )


def _grouped(values: list[str], size: int) -> list[list[str]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
