"""Token ids as a model's own tokenizer file gives them: the truth that a library's tokenizer is compared with.

tokenizer.json is read by the tokenizers library itself, a SentencePiece model by SentencePiece; a plain vocabulary is
put together with the rules of its class.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.files import TOKENIZER_JSON, sentencepiece_file, tokenizer_file
from nemo_sspo.tokens.plain_rules import added_tokens, tokenizer_of
from nemo_sspo.tokens.plain_vocabulary import read_plain_vocabulary
from nemo_sspo.tokens.vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_TIE = 1e-3
"""Largest difference of two scores, which are sums of float32, that is taken for none."""


class OwnFile(Protocol):
    """A tokenizer's own file."""

    path: Path

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without those that only frame one."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids."""
        ...

    def same(self, found: Sequence[int], right: Sequence[int]) -> bool:
        """Whether two lists of ids are one tokenization of a text."""
        ...


class TokenizersFile:
    """A file whose rules the tokenizers library applies, with the tokens that the files beside it add."""

    def __init__(
        self, path: Path, tokenizer: "Tokenizer", added: Sequence["AddedToken"], ids: Mapping[str, int]
    ) -> None:
        """`added`: in the order of their `ids`. Raises UserError where the library gives one another id."""
        self.path = path
        self.tokenizer = tokenizer
        for token in added:
            tokenizer.add_tokens([token])
            given, right = tokenizer.token_to_id(token.content), ids[token.content]
            if given != right:
                config = path.parent / "tokenizer_config.json"
                raise UserError(f"{config}: {token.content} = {right}, but the next free id is {given}")

    def encode(self, text: str) -> list[int]:
        """See `OwnFile.encode`."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def framed(self, text: str) -> list[int]:
        """Token ids of a text with those that frame one ([CLS], [SEP])."""
        return self.tokenizer.encode(text).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `OwnFile.decode`."""
        return self.tokenizer.decode(list(token_ids))

    def same(self, found: Sequence[int], right: Sequence[int]) -> bool:
        """See `OwnFile.same`."""
        return list(found) == list(right)


class SentencePieceFile:
    """A SentencePiece model. It knows no added tokens: a text that spells one is no text to compare on."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file, or the package that reads it, is not there."""
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise UserError(f"{path}: the package sentencepiece is not installed, which reads it; install it") from None
        self.path = path
        try:
            self.pieces = SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path}: not a SentencePiece model ({str(error).splitlines()[0]})") from None

    def encode(self, text: str) -> list[int]:
        """See `OwnFile.encode`."""
        return list(self.pieces.encode(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `OwnFile.decode`."""
        return str(self.pieces.decode(list(token_ids)))

    def same(self, found: Sequence[int], right: Sequence[int]) -> bool:
        """See `OwnFile.same`. Of segmentations of one text whose scores tie ("..." as "." + ".." or the other way
        round), SentencePiece returns either, as rounding has it."""
        if list(found) == list(right):
            return True
        texts = ["".join(self.pieces.id_to_piece(id_) for id_ in ids) for ids in (found, right)]
        scores = [sum(self.pieces.get_score(id_) for id_ in ids) for ids in (found, right)]
        return texts[0] == texts[1] and len(found) == len(right) and abs(scores[0] - scores[1]) < _TIE


def own_file(directory: Path) -> TokenizersFile | SentencePieceFile:
    """The tokenizer's own file in a model directory.

    Raises:
        UserError: it has none, or one of a kind whose ids cannot be known.
    """
    if (path := tokenizer_file(directory)) is None:
        raise UserError(
            f"{directory}: its tokenizer cannot be loaded (no file of one lies there); copy its tokenizer.json"
        )
    if path == sentencepiece_file(directory):
        return SentencePieceFile(path)
    if (vocabulary := read_vocabulary(directory)) is None:
        raise UserError(f"{path}: holds no token; copy it from where the model was trained")
    if path.name == TOKENIZER_JSON:
        return _of_tokenizer_json(path, vocabulary)
    plain = read_plain_vocabulary(path)
    tokenizer = tokenizer_of(plain, vocabulary.named)
    return TokenizersFile(path, tokenizer, added_tokens(directory, vocabulary, plain.rules), vocabulary.ids)


def _of_tokenizer_json(path: Path, vocabulary: Vocabulary) -> TokenizersFile:
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: not a tokenizer of the tokenizers library ({error})") from None
    tokenizer.no_truncation()  # a limit that a file has stored is not its rule
    tokenizer.no_padding()
    missing = [token for _, token in sorted(vocabulary.tokens.items()) if tokenizer.token_to_id(token) is None]
    special = vocabulary.control
    added = [AddedToken(token, special=token in special, normalized=token not in special) for token in missing]
    return TokenizersFile(path, tokenizer, added, vocabulary.ids)
