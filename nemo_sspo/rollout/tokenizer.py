"""The policy's own tokenizer: the chat template is applied here, once, and every later stage works on token ids."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from nemo_sspo.artifacts.model_source import SIDE_FILES, local_model
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_policy_tokenizer(policy: str) -> "PreTrainedTokenizerBase":
    """Tokenizer of a policy directory or hub id; refuses one without a chat template or an end-of-turn token."""
    from transformers import AutoTokenizer

    directory = local_model(policy, "policy", SIDE_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # a missing or broken tokenizer surfaces as OSError, ValueError, KeyError or TypeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"policy={policy}: its tokenizer cannot be loaded ({reason})") from None
    if tokenizer.chat_template is None:
        raise UserError(
            f"policy={policy}: its tokenizer has no chat template; add `chat_template` to tokenizer_config.json, "
            "or take the instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"policy={policy}: its tokenizer has no eos_token, so that no response could ever end")
    return tokenizer


def tokenizer_identity(tokenizer: "PreTrainedTokenizerBase") -> str:
    """32 hex digits that two tokenizers share only if they give every text the same ids under the same template."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = fast.to_str() if fast is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = (rules, tokenizer.chat_template, tokenizer.eos_token_id)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def prompt_token_ids(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation under the chat template, generation prompt included.

    Raises:
        ValueError: the template refuses the conversation (some know no system role, or insist on alternation).
    """
    from jinja2 import TemplateError

    try:
        token_ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
    except TemplateError as error:
        raise ValueError(f"the policy's chat template refuses it ({error})") from None
    return cast("list[int]", token_ids)


def stop_token_ids(policy: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that end a response: the tokenizer's end of sequence and those of generation_config.json."""
    from transformers import GenerationConfig

    stops = {tokenizer.eos_token_id}
    directory = local_model(policy, "policy", SIDE_FILES)
    if (directory / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(directory).eos_token_id
        stops |= set(configured if isinstance(configured, list) else [configured]) - {None}
    return sorted(stops)


def end_of_turn(policy: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that the chat template puts behind an assistant's message, of those that end a response."""
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = cast("list[int]", tokenizer.apply_chat_template(turn, return_dict=False))
    stops = set(stop_token_ids(policy, tokenizer))
    return next((token for token in reversed(rendered) if token in stops), cast(int, tokenizer.eos_token_id))


def response_text(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int], *, stopped: bool) -> str:
    """Text of a response without special tokens; a response that stopped ends with its end-of-turn token."""
    body = list(token_ids[:-1] if stopped else token_ids)
    return str(tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def context_tokens(policy: str) -> int | None:
    """Positions that a policy was made for (`max_position_embeddings`); None where its config.json does not say."""
    path = local_model(policy, "policy", SIDE_FILES) / "config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    positions = config.get("text_config", config).get("max_position_embeddings")
    return int(positions) if positions else None
