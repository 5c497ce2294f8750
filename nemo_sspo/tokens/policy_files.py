"""A policy's tokenizer files against its template and its model's configuration, before either is loaded.

What is wrong here is said by a dry run and by the stages alike. No transformers.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.chat_template import (
    Render,
    Turn,
    find_template,
    question_and_answer,
    read_turn,
    template_renderer,
)
from nemo_sspo.tokens.control import ControlTokens
from nemo_sspo.tokens.files import sentencepiece_file
from nemo_sspo.tokens.own_file import own_file
from nemo_sspo.tokens.vocabulary import Vocabulary, read_vocabulary

_ENDS = ("config.json", "generation_config.json")
_IDS = ("eos_token_id", "bos_token_id", "pad_token_id")


@dataclass(frozen=True)
class PolicyTokens:
    """What a policy's files say about its tokens."""

    vocabulary: Vocabulary
    control: ControlTokens
    render: Render
    turn: Turn

    @property
    def end_of_turn(self) -> int | None:
        """Id of the token that the template puts behind an answer, where it puts one."""
        return None if self.turn.end is None else self.vocabulary.ids[self.turn.end]


def read_policy_tokens(directory: Path, arguments: Mapping[str, Any]) -> PolicyTokens | None:
    """Read and check; None where the tokenizer is of no kind that can be read here.

    Args:
        arguments: `data.template_arguments`.

    Raises:
        UserError: no template, or one that does not fit the tokenizer; ids that do not fit the model.
    """
    vocabulary = read_vocabulary(directory)
    if vocabulary is None:
        return None
    for problem in id_problems(directory, "policy", vocabulary):
        raise UserError(problem)
    control = ControlTokens(vocabulary.control)
    render = policy_template(directory, vocabulary.named, arguments)
    added = ControlTokens(vocabulary.added)
    turn = read_turn(render, control, added, f"policy={directory}: its chat template")
    found = PolicyTokens(vocabulary, control.with_end(turn.end), render, turn)
    if not stop_ids(directory, found.end_of_turn, vocabulary):
        raise UserError(
            f"policy={directory}: its tokenizer has no eos_token, and no file names another end, so that no response "
            "could ever end"
        )
    return found


def policy_problems(directory: Path, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Everything that `read_policy_tokens` refuses, for a dry run.

    Raises:
        UserError: what keeps it from looking further.
    """
    vocabulary = read_vocabulary(directory)
    if vocabulary is None:
        question_and_answer(policy_template(directory, {}, arguments), f"policy={directory}: its chat template")
    elif problems := list(id_problems(directory, "policy", vocabulary)):
        yield from problems
    else:
        if sentencepiece_file(directory) is None:
            own_file(directory)
        read_policy_tokens(directory, arguments)


def policy_template(directory: Path, named: Mapping[str, str], arguments: Mapping[str, Any]) -> Render:
    """The chat template of a policy as a function.

    Raises:
        UserError: it has none, or one that cannot be read.
    """
    if (found := find_template(directory)) is None:
        raise UserError(
            f"policy={directory}: no chat template in tokenizer_config.json and no chat_template.jinja; add one, or "
            "take the instruction-tuned model"
        )
    return template_renderer(*found, named, arguments)


def id_problems(directory: Path, setting: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Tokens without an embedding row, and ids of the configuration that are no token or do not end a text."""
    yield from row_problems(directory, setting, vocabulary)
    rows = model_rows(directory)
    for file in _ENDS:
        config = json_or_empty(directory / file)
        for key in _IDS:
            yield from _type_problems(f"{directory / file}: {key}", config.get(key))
            for found in configured_ids(config.get(key)):
                yield from _id_problem(f"{directory / file}: {key} {found}", key, found, vocabulary, rows)


def row_problems(directory: Path, setting: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Tokens that a model has no embedding for."""
    rows, (id_, token) = model_rows(directory), vocabulary.highest
    if rows is not None and id_ >= rows:
        yield (
            f"{setting}={directory}: its tokenizer has {id_ + 1} tokens, the model {rows} rows: {token} = {id_} has no "
            "embedding; resize the model's embeddings (resize_token_embeddings), or remove the token"
        )


def _type_problems(where: str, value: Any) -> Iterator[str]:
    """A setting like ``eos_token_id`` is an id, a list of ids, or null; some configurations write -1 for none."""
    for each in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(each, int) or isinstance(each, bool) or each < -1:
            yield f"{where} is {json.dumps(value)}, not an id, a list of ids or null; correct it"
            return


def _id_problem(where: str, key: str, id_: int, vocabulary: Vocabulary, rows: int | None) -> Iterator[str]:
    token = vocabulary.tokens.get(id_)
    if rows is not None and id_ >= rows:
        yield f"{where} is beyond the model's {rows} rows; correct it"
    elif token is None:
        yield f"{where} is no token of the tokenizer beside it; correct it, or take the tokenizer of this model"
    elif key == "eos_token_id" and token not in vocabulary.added:
        yield (
            f"{where} is {token!r}, an ordinary token of the tokenizer beside it, which would end responses in their "
            "middle; correct it, or take the tokenizer of this model"
        )


def model_rows(directory: Path) -> int | None:
    """Rows of a model's embedding by its config.json; None where that does not say."""
    config = json_or_empty(directory / "config.json")
    text = config.get("text_config")
    rows = (text if isinstance(text, dict) else config).get("vocab_size")
    return rows if isinstance(rows, int) else None


def configured_ids(value: Any) -> list[int]:
    """The ids of a setting like ``eos_token_id``: one, several, or none (null, and -1 in some configurations)."""
    values = value if isinstance(value, list) else [value]
    return [id_ for id_ in values if isinstance(id_, int) and not isinstance(id_, bool) and id_ >= 0]


def stop_ids(directory: Path, end_of_turn: int | None, vocabulary: Vocabulary | None) -> list[int]:
    """Tokens that end a response, by a policy's files: what stands at the end of a turn, the tokenizer's end of
    sequence, and those of config.json and generation_config.json."""
    found = {id_ for file in _ENDS for id_ in configured_ids(json_or_empty(directory / file).get("eos_token_id"))}
    if vocabulary is not None and (name := vocabulary.named.get("eos_token")) is not None:
        found.add(vocabulary.ids[name])
    return sorted(found | ({end_of_turn} if end_of_turn is not None else set()))
