"""Token ids as a model's own tokenizer file gives them: the truth that a library's tokenizer is compared with.

tokenizer.json is read by the tokenizers library itself, a SentencePiece model by SentencePiece.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.vocabulary import TOKENIZER_JSON, read_vocabulary, sentencepiece_file

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


class TokenizerJson:
    """tokenizer.json, with the tokens that the files beside it add."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file cannot be read, or the files beside it give a token another id."""
        from tokenizers import AddedToken, Tokenizer

        self.path = path
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path}: not a tokenizer of the tokenizers library ({error})") from None
        self.tokenizer.no_truncation()  # a limit that a file has stored is not its rule
        self.tokenizer.no_padding()
        vocabulary = read_vocabulary(path.parent)
        missing = (
            {}
            if vocabulary is None
            else {t: i for t, i in vocabulary.ids.items() if self.tokenizer.token_to_id(t) is None}
        )
        for token, id_ in sorted(missing.items(), key=lambda item: item[1]):
            special = vocabulary is not None and token in vocabulary.control
            self.tokenizer.add_tokens([AddedToken(token, special=special, normalized=not special)])
            if (given := self.tokenizer.token_to_id(token)) != id_:
                raise UserError(
                    f"{path.parent / 'tokenizer_config.json'}: {token} = {id_}, but the next free id is {given}"
                )

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
        round), SentencePiece itself takes now this, now that one: rounding decides."""
        if list(found) == list(right):
            return True
        texts = ["".join(self.pieces.id_to_piece(id_) for id_ in ids) for ids in (found, right)]
        scores = [sum(self.pieces.get_score(id_) for id_ in ids) for ids in (found, right)]
        return texts[0] == texts[1] and len(found) == len(right) and abs(scores[0] - scores[1]) < _TIE


def own_file(directory: Path) -> TokenizerJson | SentencePieceFile | None:
    """The tokenizer's own file in a model directory; None where it has none that another program could read."""
    if (path := directory / TOKENIZER_JSON).is_file():
        return TokenizerJson(path)
    pieces = sentencepiece_file(directory)
    return None if pieces is None else SentencePieceFile(pieces)
