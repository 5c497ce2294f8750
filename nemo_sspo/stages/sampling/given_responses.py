"""Responses that were made elsewhere as a rollouts artifact: tokenized for the policy, with its end-of-turn token
where they ended."""

from typing import TYPE_CHECKING

import pyarrow as pa

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.facts.sampling import RolloutFacts
from nemo_sspo.artifacts.sources.responses import ResponseRead, read_responses
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.control_tokens import responses_without_control_tokens
from nemo_sspo.stages.sampling.policy_tokenizer import same_tokenizer
from nemo_sspo.stages.sampling.rollout_table import conversation_text, response_facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def take_given(context: StageContext, prompts: pa.Table, source: str) -> None:
    """Publish rollouts.parquet of a shard's prompts with the responses that `source` has for them.

    Raises:
        UserError: a prompt has no responses there, or one cannot be used; prompt or line are named.
    """
    from nemo_sspo.rollout.tokenizer import control_tokens, end_of_turn

    data = context.experiment.data
    tokenizer = same_tokenizer(context)
    whole = read_responses(source, drop_duplicates=data.duplicate_prompts == "drop", names=data.columns.names)
    read, _ = responses_without_control_tokens(whole, control_tokens(tokenizer), data.control_tokens)
    end = end_of_turn(tokenizer)
    limit = context.experiment.rollout.max_response_tokens
    places = {item.key: item.where for item in read.prompts.conversations}
    rows, dropped = [], 0
    for done, prompt in enumerate(prompts.to_pylist()):
        key = tuple((message["role"], message["content"]) for message in prompt["messages"])
        if key in whole.responses and key not in read.responses:
            dropped += 1
            continue
        texts = responses_to(read, key, prompt["prompt_id"])
        responses = [
            _response(f"{places[key]}, response {position}", prompt["prompt_id"], text, reason, tokenizer, end, limit)
            for position, (text, reason) in enumerate(zip(texts, read.finish_reasons[key], strict=True), start=1)
        ]
        rows.append(prompt | {"prompt": conversation_text(prompt["messages"]), "responses": responses})
        context.progress.update(done + 1, prompts.num_rows, unit="prompts")
    if not rows:
        raise UserError(f"{source}: no prompt of this shard is left: each has a response that spells a control token")
    table = ROLLOUTS.of(rows)
    ROLLOUTS.write(context.output.path, table)
    facts = vars(response_facts(table))
    context.output.facts = RolloutFacts(**facts, given=table.num_rows * read.k, dropped_control_tokens=dropped)
    context.output.rows = table.num_rows


def responses_to(read: ResponseRead, key: tuple[tuple[str, str], ...], prompt_id: str) -> tuple[str, ...]:
    """The responses to a prompt. Raises UserError where there are none."""
    if key not in read.responses:
        raise UserError(
            f"{read.prompts.source}: no responses to prompt {prompt_id} ({key[-1][1][:60]!r}); give prompts=... the "
            "same file, or one with no other prompts"
        )
    return read.responses[key]


def _response(
    where: str, prompt_id: str, text: str, reason: str, tokenizer: "PreTrainedTokenizerBase", end: int, limit: int
) -> dict[str, object]:
    """One response as it would have been sampled: its text's tokens and, if it ended, the end-of-turn token.

    Its log-probs are unknown.
    """
    body = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if end in body:  # where no control token ends a turn, a text may spell what does
        name = tokenizer.convert_ids_to_tokens(end)
        raise UserError(f"{where}: its text spells {name}, which ends a response; remove it from the text")
    token_ids = [*body, end] if reason == "stop" else body
    refuse_overlong(where, len(token_ids), limit)
    return {
        "response_id": content_id(prompt_id, token_ids),
        "text": text,
        "token_ids": token_ids,
        "logprobs": None,
        "finish_reason": reason,
    }


def refuse_overlong(where: str, tokens: int, limit: int) -> None:
    """Raise a UserError for a response of more than `limit` tokens, its end included."""
    if tokens > limit:
        raise UserError(
            f"{where}: {tokens} tokens, over rollout.max_response_tokens={limit}; raise the limit, or remove "
            "it (pairs.max_tokens drops long pairs)"
        )
