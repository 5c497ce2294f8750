"""Responses that were made elsewhere as a rollouts artifact: tokenized for the policy, with its end-of-turn token
where they ended."""

from typing import TYPE_CHECKING

import pyarrow as pa

from nemo_sspo.artifacts.layout import ROLLOUTS as ROLLOUTS_FILE
from nemo_sspo.artifacts.response_source import ResponseRead, read_responses
from nemo_sspo.artifacts.schema import ROLLOUTS, content_id
from nemo_sspo.artifacts.store import write_table
from nemo_sspo.errors import UserError
from nemo_sspo.stages.context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def take_given(context: StageContext, prompts: pa.Table, source: str) -> None:
    """Publish rollouts.parquet of a shard's prompts with the responses that `source` has for them.

    Raises:
        UserError: a prompt has no responses there, or one cannot be used; prompt or line are named.
    """
    from nemo_sspo.rollout.tokenizer import end_of_turn
    from nemo_sspo.stages.rollout import conversation_text, rollout_counts, same_tokenizer

    read = read_responses(source, drop_duplicates=context.experiment.data.duplicate_prompts == "drop")
    tokenizer = same_tokenizer(context)
    end = end_of_turn(context.policy, tokenizer)
    limit = context.experiment.rollout.max_response_tokens
    places = {item.key: item.where for item in read.prompts.conversations}
    rows = []
    for done, prompt in enumerate(prompts.to_pylist()):
        key = tuple((message["role"], message["content"]) for message in prompt["messages"])
        texts = _responses_to(read, key, prompt["prompt_id"])
        responses = [
            _response(f"{places[key]}, response {position}", prompt["prompt_id"], text, reason, tokenizer, end, limit)
            for position, (text, reason) in enumerate(zip(texts, read.finish_reasons[key], strict=True), start=1)
        ]
        rows.append(prompt | {"prompt": conversation_text(prompt["messages"]), "responses": responses})
        context.progress.update(done + 1, prompts.num_rows, unit="prompts")
    table = pa.Table.from_pylist(rows, schema=ROLLOUTS)
    write_table(context.output.path / ROLLOUTS_FILE, table)
    context.output.counts |= rollout_counts(table) | {"given": table.num_rows * read.k}
    context.output.rows = table.num_rows


def _responses_to(read: ResponseRead, key: tuple[tuple[str, str], ...], prompt_id: str) -> tuple[str, ...]:
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
    if spelled := set(body) & set(tokenizer.all_special_ids) | set(body) & {end}:
        name = tokenizer.convert_ids_to_tokens(min(spelled))
        raise UserError(f"{where}: its text spells the special token {name}; remove it from the text")
    token_ids = [*body, end] if reason == "stop" else body
    if len(token_ids) > limit:
        raise UserError(
            f"{where}: {len(token_ids)} tokens, over rollout.max_response_tokens={limit}; raise the limit, or remove "
            "it (pairs.max_tokens drops long pairs)"
        )
    return {
        "response_id": content_id(prompt_id, token_ids),
        "text": text,
        "token_ids": token_ids,
        "logprobs": None,
        "finish_reason": reason,
    }
