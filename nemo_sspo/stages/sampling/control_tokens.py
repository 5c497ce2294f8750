"""Texts of a prompt file must not spell control tokens. One rule for the dry run and the stages."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from nemo_sspo.artifacts.sources.prompts import Conversation, PromptRead
from nemo_sspo.artifacts.sources.responses import ResponseRead
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.control import ControlTokens

_NAMED_AT_MOST = 20

Rule = Literal["error", "drop"]
Found = list[tuple[Conversation, str, str]]
"""Conversations with the message or response that spells a control token, and the token."""


def without_control_tokens(read: PromptRead, control: ControlTokens, rule: Rule) -> tuple[PromptRead, int]:
    """The prompts that spell no control token of the policy's, and how many do.

    Raises:
        UserError: one does, and `rule` is ``error``; file, line and token are named.
    """
    found: Found = [
        (conversation, f"message {place}" if len(conversation.messages) > 1 else "its text", token)
        for conversation in read.conversations
        for place, token in _first(control, (message["content"] for message in conversation.messages))
    ]
    _tell(read, found, rule)
    dropped = {conversation.key for conversation, _, _ in found}
    return replace(read, conversations=[c for c in read.conversations if c.key not in dropped]), len(dropped)


def responses_without_control_tokens(
    read: ResponseRead, control: ControlTokens, rule: Rule
) -> tuple[ResponseRead, int]:
    """The same of given responses: a prompt with such a response is left out with all of its responses.

    Raises:
        UserError: see `without_control_tokens`.
    """
    found: Found = [
        (conversation, f"response {place}", token)
        for conversation in read.prompts.conversations
        for place, token in _first(control, read.responses[conversation.key])
    ]
    _tell(read.prompts, found, rule)
    dropped = {conversation.key for conversation, _, _ in found}
    kept = {key: texts for key, texts in read.responses.items() if key not in dropped}
    prompts = [conversation for conversation in read.prompts.conversations if conversation.key not in dropped]
    return replace(read, prompts=replace(read.prompts, conversations=prompts), responses=kept), len(dropped)


def _first(control: ControlTokens, texts: Iterable[str]) -> list[tuple[int, str]]:
    """The first text that spells a control token, by its place from 1, and the token; nothing where none does."""
    spelled = ((place, control.spelled(text)) for place, text in enumerate(texts, start=1))
    return next(([(place, token)] for place, token in spelled if token is not None), [])


def _tell(read: PromptRead, found: Found, rule: Rule) -> None:
    """Refuse the texts that were found, or report that they are left out."""
    if not found:
        return
    conversation, where, token = found[0]
    if rule == "error":
        others = f" (and {len(found) - 1} more records do so)" if len(found) > 1 else ""
        where = "" if where == "its text" else f", {where}"
        raise UserError(
            f"{conversation.where}{where}: its text spells the control token {token}{others}, which would be "
            "read as one; remove it from the text, or set data.control_tokens=drop"
        )
    named = ", ".join(f"{each.where} ({spelled})" for each, _, spelled in found[:_NAMED_AT_MOST])
    more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
    print(f"{read.source}: {len(found)} records spell a control token and are left out: {named}{more}")
