"""The tokens of a model directory and their ids, as its tokenizer's files have them. No transformers.

A token of tokenizer_config.json or special_tokens_map.json that the tokenizer's file lacks gets the next free id, which
is what libraries do that load it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError

TOKENIZER_JSON = "tokenizer.json"
SENTENCEPIECE_FILES = ("spm.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
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
    """The vocabulary of a model directory; None where its tokenizer is of no kind that can be read here.

    Raises:
        UserError: a file is not what its name says.
    """
    files = [directory / name for name in (TOKENIZER_JSON, *SENTENCEPIECE_FILES, *_OTHER_FILES, *_SIDE_FILES)]
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None for path in files)
    return _read(directory, stamps)


@lru_cache(maxsize=8)
def _read(directory: Path, stamps: object) -> Vocabulary | None:
    """Read once for every state of the files."""
    del stamps
    ids, control, added = _own_tokens(directory)
    if not ids:
        return None
    config = json_or_empty(directory / "tokenizer_config.json")
    for key, value in _entries(config.get("added_tokens_decoder")):
        if not key.isdecimal() or not isinstance(value, dict) or not isinstance(value.get("content"), str):
            raise UserError(f"{directory / 'tokenizer_config.json'}: added_tokens_decoder maps no id to a token")
        ids.setdefault(value["content"], int(key))
        added.add(value["content"])
        control |= {value["content"]} if value.get("special") else set()
    ids |= {token: id_ for token, id_ in _entries(json_or_empty(directory / "added_tokens.json")) if token not in ids}
    named = dict(_named(json_or_empty(directory / "special_tokens_map.json"))) | dict(_named(config))
    listed = [token for name in _NAMED_LISTS for token in _listed(config.get(name))]
    free = max(ids.values()) + 1
    for token in dict.fromkeys([*named.values(), *listed]):
        if token not in ids:
            ids[token] = free
            free += 1
    control |= {*named.values(), *listed}
    return Vocabulary(ids, frozenset(control), named, frozenset(added | control))


def _own_tokens(directory: Path) -> tuple[dict[str, int], set[str], set[str]]:
    """Ids, control tokens and added tokens of the file that the tokenizer is kept in."""
    if (path := directory / TOKENIZER_JSON).is_file():
        return _of_tokenizer_json(path)
    if (pieces := sentencepiece_file(directory)) is not None:
        return _of_sentencepiece(pieces)
    if (path := directory / "vocab.json").is_file():
        return {str(token): int(id_) for token, id_ in json_or_empty(path).items()}, set(), set()
    if (path := directory / "vocab.txt").is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return {token: id_ for id_, token in enumerate(lines)}, set(), set()
    return {}, set(), set()


_OTHER_FILES = ("vocab.json", "vocab.txt")
_SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def sentencepiece_file(directory: Path) -> Path | None:
    """The SentencePiece model of a directory without tokenizer.json, if it has one."""
    if (directory / TOKENIZER_JSON).is_file():
        return None
    files = (directory / name for name in SENTENCEPIECE_FILES)
    return next((file for file in files if file.is_file() and not _is_tiktoken(file)), None)


def _is_tiktoken(path: Path) -> bool:
    """Llama 3's own tokenizer.model is text: base64 words and their ranks."""
    with path.open("rb") as file:
        return all(byte in _PRINTABLE for byte in file.read(64))


_PRINTABLE = frozenset(range(0x20, 0x7F)) | {0x0A}


def _of_tokenizer_json(path: Path) -> tuple[dict[str, int], set[str], set[str]]:
    content = json_or_empty(path)
    try:
        vocabulary, added = content["model"]["vocab"], content.get("added_tokens") or []
        if isinstance(vocabulary, list):  # Unigram: a token and its score
            vocabulary = {entry[0]: id_ for id_, entry in enumerate(vocabulary)}
        ids = dict(vocabulary) | {token["content"]: int(token["id"]) for token in added}
        special = {token["content"] for token in added if token.get("special")}
        return ids, special, {token["content"] for token in added}
    except (KeyError, TypeError, IndexError) as error:
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


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """``*_token`` settings with their token."""
    for name, value in config.items():
        if name.endswith("_token"):
            yield from ((name, token) for token in _listed([value]))


def _listed(value: Any) -> Iterator[str]:
    """The tokens of a list or mapping of them; each is text, or an object with its ``content``."""
    for each in value.values() if isinstance(value, dict) else value or ():
        token = each.get("content") if isinstance(each, dict) else each
        if isinstance(token, str) and token:
            yield token


def _entries(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def json_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file.

    Raises:
        UserError: the file is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value
