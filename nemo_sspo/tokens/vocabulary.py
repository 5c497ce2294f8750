"""The tokens of a model directory and their ids, as its tokenizer's files have them. No transformers.

A token of tokenizer_config.json or special_tokens_map.json that the tokenizer's file lacks gets the next free id, which
is what libraries do that load it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.files import (
    SENTENCEPIECE_FILES,
    TOKENIZER_JSON,
    VOCABULARY_FILES,
    sentencepiece_file,
    tokenizer_file,
)
from nemo_sspo.tokens.plain_vocabulary import read_plain_vocabulary, unknown_kind

_FILES = (TOKENIZER_JSON, *SENTENCEPIECE_FILES, *VOCABULARY_FILES)
_SIDE_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_ID = re.compile("[0-9]{1,9}")
_NAMED_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class Vocabulary:
    """Every token of a tokenizer."""

    ids: Mapping[str, int]
    """Id of each token, added ones included."""
    control: frozenset[str]
    """Tokens that text must not spell: special ones, whether or not they have a name."""
    named: Mapping[str, str]
    """``eos_token`` and its like, as the files name them."""
    added: frozenset[str]
    """Tokens that are found in a text as they are, before anything else is: the control tokens and some more."""

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Token of each id."""
        return {id_: token for token, id_ in self.ids.items()}

    @cached_property
    def highest(self) -> tuple[int, str]:
        """The highest id, and its token."""
        return max((id_, token) for token, id_ in self.ids.items())


def read_vocabulary(directory: Path) -> Vocabulary | None:
    """The vocabulary of a model directory; None where it has no tokenizer, or one that needs a package to be read.

    Raises:
        UserError: a file is not what its name says, or of a kind whose ids cannot be known.
    """
    files = [directory / name for name in (*_FILES, *_SIDE_FILES)]
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None for path in files)
    return _read(directory, (tokenizer_file(directory), *stamps))


@lru_cache(maxsize=8)
def _read(directory: Path, stamps: object) -> Vocabulary | None:
    """Read once for every state of the files."""
    del stamps
    ids, control, added, named = _own_tokens(directory)
    if not ids:
        return None
    config = json_or_empty(directory / "tokenizer_config.json")
    for key, value in _entries(config.get("added_tokens_decoder")):
        if not _ID.fullmatch(key) or not isinstance(value, dict) or not isinstance(value.get("content"), str):
            raise UserError(f"{directory / 'tokenizer_config.json'}: added_tokens_decoder maps no id to a token")
        ids.setdefault(value["content"], int(key))
        added.add(value["content"])
        control |= {value["content"]} if value.get("special") else set()
    beside = directory / "added_tokens.json"
    ids |= {token: id_ for token, id_ in _entries(json_or_empty(beside)) if token not in ids and _is_id(id_, beside)}
    named |= dict(_named(json_or_empty(directory / "special_tokens_map.json"))) | dict(_named(config))
    listed = [token for name in _NAMED_LISTS for token in _listed(config.get(name))]
    free = max(ids.values()) + 1
    for token in dict.fromkeys([*named.values(), *listed]):
        if token not in ids:
            ids[token] = free
            free += 1
    control |= {*named.values(), *listed}
    return Vocabulary(ids, frozenset(control), named, frozenset(added | control))


def _own_tokens(directory: Path) -> tuple[dict[str, int], set[str], set[str], dict[str, str]]:
    """Ids, control tokens, added tokens and tokens with a name, of the file that the tokenizer is kept in."""
    if (path := tokenizer_file(directory)) is None:
        return {}, set(), set(), {}
    if path.name == TOKENIZER_JSON:
        return *_of_tokenizer_json(path), {}
    if path == sentencepiece_file(directory):
        return *_of_sentencepiece(path), {}
    if path.name not in VOCABULARY_FILES:
        raise unknown_kind(path)
    plain = read_plain_vocabulary(path)
    return dict(plain.ids), set(), set(), dict(plain.named)


def _of_tokenizer_json(path: Path) -> tuple[dict[str, int], set[str], set[str]]:
    content = json_or_empty(path)
    try:
        vocabulary, added = content["model"]["vocab"], content.get("added_tokens") or []
        if isinstance(vocabulary, list):  # Unigram: a token and its score
            vocabulary = {entry[0]: id_ for id_, entry in enumerate(vocabulary)}
        ids = dict(vocabulary) | {token["content"]: token["id"] for token in added}
        special = {token["content"] for token in added if token.get("special")}
        all(isinstance(token, str) and _is_id(id_, path) for token, id_ in ids.items())
        return ids, special, {token["content"] for token in added}
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not a tokenizer of the tokenizers library ({type(error).__name__}: {error})"
        ) from None


def _of_sentencepiece(path: Path) -> tuple[dict[str, int], set[str], set[str]]:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:  # an environment that only plans
        return {}, set(), set()
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path}: not a SentencePiece model ({str(error).splitlines()[0]})") from None
    ids = {pieces.id_to_piece(id_): id_ for id_ in range(len(pieces))}
    control = {token for token, id_ in ids.items() if pieces.is_control(id_) or pieces.is_unknown(id_)}
    return ids, control, set(control)


def _is_id(value: Any, path: Path) -> bool:
    """True; raises a UserError where it is no id."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise UserError(f"{path}: maps a token to {str(value)[:40]}, which is no id")
    return True


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """``*_token`` settings with their token."""
    for name, value in config.items():
        if name.endswith("_token"):
            yield from ((name, token) for token in _listed([value]))


def _listed(value: Any) -> Iterator[str]:
    """The tokens of a list or mapping of them; each is text, or an object with its ``content``."""
    listed = value.values() if isinstance(value, dict) else value
    for each in listed if isinstance(listed, Iterable) else ():
        token = each.get("content") if isinstance(each, dict) else each
        if isinstance(token, str) and token:
            yield token


def _entries(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
