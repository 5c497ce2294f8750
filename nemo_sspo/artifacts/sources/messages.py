"""Lists of messages: a prompt's, and whole conversations, of which the prompt is what stands before the answer."""

from collections.abc import Iterator
from typing import Any

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.errors import UserError

ROLES = ("system", "user", "assistant")
_ROLE_OF = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
"""Speakers of ShareGPT's conversations, in small letters, that have another name here."""
_MOST_MESSAGES = 10_000

Message = dict[str, str]


def messages(where: str, value: list[Any]) -> Iterator[Message]:
    """The messages of a prompt, one by one, the last of which is the user's.

    Raises:
        UserError: a message is not one, or would be lost; its place is named after `where`.
    """
    if not value:
        raise UserError(f"{where} is empty; give at least one user message")
    if len(value) > _MOST_MESSAGES:
        raise UserError(f"{where}: {len(value)} messages, more than the {_MOST_MESSAGES} of any conversation")
    for position, message in enumerate(value, start=1):
        here = f"{where}, message {position}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UserError(f"{here}: expected an object with `role` and `content`, both text")
        role = message.get("role")
        if role not in ROLES:
            raise UserError(f"{here}: role {role!r} is none of {', '.join(ROLES)}")
        if role == "system" and position > 1:
            raise UserError(f"{here}: a system message can only come first")
        if role == "user" and not message["content"].strip():
            raise UserError(f"{here}: empty user message; remove the prompt or give it text")
        if call := next((name for name in ("tool_calls", "function_call") if message.get(name)), None):
            raise UserError(f"{here}: `{call}` is not read, and would change the prompt; remove the prompt")
        refuse_surrogates(here, message["content"])
        yield {"role": role, "content": message["content"]}
    if value[-1]["role"] != "user":
        last = value[-1]["role"]
        raise UserError(f"{where}: the last message is the {last}'s; it must be the user's: leave the answer out")


def before_the_answer(where: str, value: list[Any]) -> list[Any]:
    """What a conversation says up to its last user's message, as messages with ``role`` and ``content``.

    Raises:
        UserError: there is no message of the user's.
    """
    turns = [_with_role(turn) for turn in value]
    last = max((place for place, turn in enumerate(turns) if _is_of_user(turn)), default=None)
    if last is None:
        raise UserError(f"{where}: no message of the user's (`from` human, or `role` user)")
    return turns[: last + 1]


def _with_role(turn: Any) -> Any:
    """A turn with ``from`` and ``value`` as one with ``role`` and ``content``."""
    if not isinstance(turn, dict) or not isinstance(speaker := turn.get("from"), str) or "role" in turn:
        return turn
    speaker = speaker.lower()
    return {"content": turn.get("value")} | turn | {"role": _ROLE_OF.get(speaker, speaker)}


def _is_of_user(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "user"
