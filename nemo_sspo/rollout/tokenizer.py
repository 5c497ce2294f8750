"""The policy's own tokenizer: the chat template is applied here, once, and every later stage works on token ids."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from nemo_sspo.artifacts.software import software_versions
from nemo_sspo.artifacts.sources.models import SIDE_FILES, local_model
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.token_record import TokenizedText, TokenRecord
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.chat_template import Turn, read_turn, refused
from nemo_sspo.tokens.control import ControlTokens, special_tokens
from nemo_sspo.tokens.lengths import model_positions
from nemo_sspo.tokens.library import describe_difference, load_tokenizer, token_ids_of
from nemo_sspo.tokens.policy_files import read_policy_tokens, stop_ids
from nemo_sspo.tokens.probes import PROBES
from nemo_sspo.tokens.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_policy_tokenizer(policy: str, arguments: Mapping[str, Any] | None = None) -> "PreTrainedTokenizerBase":
    """Tokenizer of a policy directory or hub id, with `arguments` for its chat template (`data.template_arguments`).

    Raises:
        UserError: it has no chat template or no end of a text, its template or its ids do not fit the model, or it
            gives other ids than its own file.
    """
    directory = local_model(policy, "policy", SIDE_FILES)
    read_policy_tokens(directory, arguments or {})
    tokenizer = load_tokenizer(directory, f"policy={policy}")
    if tokenizer.chat_template is None:
        raise UserError(
            f"policy={policy}: its tokenizer has no chat template; add `chat_template` to tokenizer_config.json, "
            "or take the instruction-tuned model"
        )
    if arguments:
        setattr(tokenizer, "apply_chat_template", partial(tokenizer.apply_chat_template, **arguments))  # noqa: B010
    if not stop_token_ids(policy, tokenizer):
        raise UserError(f"policy={policy}: its tokenizer has no eos_token, so that no response could ever end")
    return tokenizer


@lru_cache(maxsize=4)
def control_tokens(tokenizer: "PreTrainedTokenizerBase") -> ControlTokens:
    """Every special token of a policy's tokenizer, whether or not it has a name, and the one that ends a turn."""
    return ControlTokens(special_tokens(tokenizer)).with_end(policy_turn(tokenizer).end)


def token_record(
    tokenizer: "PreTrainedTokenizerBase", arguments: Mapping[str, Any], texts: Iterable[str]
) -> TokenRecord:
    """A tokenizer's ids for the probes and `texts`, to compare where it is loaded elsewhere."""
    every = [*PROBES, *texts]
    return TokenRecord(
        vocabulary=_digest(tokenizer.get_vocab()),
        chat_template=_digest(tokenizer.chat_template),
        arguments=dict(arguments),
        texts=[TokenizedText(text=text, token_ids=token_ids_of(tokenizer, text)) for text in every],
    )


def refuse_other_tokens(
    tokenizer: "PreTrainedTokenizerBase", record: TokenRecord, policy: str, prompts: Artifact
) -> None:
    """Refuse a tokenizer that is another than the one of `record`, which made `prompts`.

    Raises:
        UserError: it makes other tokens of a text, which is named, or it has other tokens or another chat template.
    """
    for known in record.texts:
        found = token_ids_of(tokenizer, known.text)
        if found != known.token_ids:
            difference = describe_difference(known.text, found, known.token_ids, tokenizer.convert_ids_to_tokens)
            raise UserError(
                f"policy {policy}: its tokenizer gives other tokens here than where {prompts.path} was made: "
                f"{difference}; {_changed(prompts.manifest.software)}"
            )
    for name, here, there in (
        ("vocabulary", _digest(tokenizer.get_vocab()), record.vocabulary),
        ("chat template", _digest(tokenizer.chat_template), record.chat_template),
    ):
        if here != there:
            raise UserError(
                f"policy {policy}: its tokenizer's {name} is not the one that made the token ids of {prompts.path}; "
                "every policy of a run has the tokenizer of its first: put that one's files back, or begin a new run"
            )


def _changed(software: Mapping[str, str]) -> str:
    here = software_versions()
    names = [name for name in ("transformers", "tokenizers") if here.get(name) != software.get(name)]
    if not names:
        return "its files have changed: put them back, or begin a new run"
    versions = ", ".join(f"{name} {software.get(name)} there and {here.get(name)} here" for name in names)
    return f"{versions}: give both environments the same"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def prompt_token_ids(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation under the chat template, generation prompt included.

    A control token that a message spells is read as a space, so that no text becomes a turn of its own.

    Raises:
        ValueError: the template refuses the conversation (some know no system role, or insist on alternation).
    """
    control = control_tokens(tokenizer)
    spoken = [{**message, "content": control.blanked(message["content"])} for message in messages]
    try:
        token_ids = tokenizer.apply_chat_template(spoken, add_generation_prompt=True, return_dict=False)
    except Exception as error:  # a template is a program
        raise ValueError(refused(error)) from None
    return cast("list[int]", token_ids)


@lru_cache(maxsize=4)
def policy_turn(tokenizer: "PreTrainedTokenizerBase") -> Turn:
    """How the chat template writes an assistant's turn, by what the library renders."""

    def render(messages: Sequence[Mapping[str, str]], prompting: bool) -> str:
        plain = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(plain, add_generation_prompt=prompting, tokenize=False))

    special, added = special_tokens(tokenizer), tokenizer.get_added_vocab()
    what = f"policy={tokenizer.name_or_path}: its chat template"
    return read_turn(render, ControlTokens(special), ControlTokens([*special, *added]), what)


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that the chat template puts behind an answer; the end of sequence where it puts none."""
    end = policy_turn(tokenizer).end or tokenizer.eos_token
    return cast(int, tokenizer.convert_tokens_to_ids(end))


def stop_token_ids(policy: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that end a response: the end of a turn, the tokenizer's end of sequence, and those of the policy's
    config.json and generation_config.json."""
    directory = local_model(policy, "policy", SIDE_FILES)
    end = policy_turn(tokenizer).end
    of_turn = None if end is None else cast(int, tokenizer.convert_tokens_to_ids(end))
    own = {tokenizer.eos_token_id} - {None}
    return sorted(own | set(stop_ids(directory, of_turn, read_vocabulary(directory))))


def response_text(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int], *, stopped: bool) -> str:
    """Text of a response without special tokens; a response that stopped ends with its end-of-turn token."""
    body = list(token_ids[:-1] if stopped else token_ids)
    return str(tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def context_tokens(policy: str) -> int | None:
    """Positions that a policy was made for (`max_position_embeddings`); None where its config.json does not say."""
    return model_positions(local_model(policy, "policy", SIDE_FILES))
