"""Tokenizers of transformers, held to the model's own file in the environment in which they are loaded.

Releases of transformers differ in what a tokenizer class makes of the same files. Where a loaded tokenizer gives other
ids than its file, the file's rules are put in its place; where that is not exact either, it is refused.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.control import ControlTokens
from nemo_sspo.tokens.own_file import OwnFile, SentencePieceFile, TokenizersFile, own_file
from nemo_sspo.tokens.probes import PROBES

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(
    directory: Path | str, setting: str, *, trust_remote_code: bool = False, framed: bool = False
) -> "PreTrainedTokenizerBase":
    """A model's tokenizer, with the ids of its own file.

    Args:
        directory: of the model, or its hub id.
        setting: what it belongs to, for messages (``policy=…``).
        framed: the tokens around a text are compared too, where they are the tokenizer's and no template's.

    Raises:
        UserError: it cannot be loaded, or it gives other ids than its file and cannot be made to give them.
    """
    from transformers import AutoTokenizer

    directory = Path(directory)
    file = own_file(directory) if directory.is_dir() else None  # first: it says what a library cannot load, and why
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except Exception as error:  # a missing or broken tokenizer surfaces as OSError, ValueError, KeyError or TypeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{setting}: its tokenizer cannot be loaded ({reason})") from None
    return tokenizer if file is None else _held(tokenizer, file, setting, framed)


def hold_to_file(
    tokenizer: "PreTrainedTokenizerBase", directory: Path, setting: str, *, framed: bool = False
) -> "PreTrainedTokenizerBase":
    """`tokenizer`, with the rules of the file in `directory` where the library has others.

    Raises:
        UserError: it cannot be made to give the file's ids.
    """
    if not directory.is_dir():  # a hub's model
        return tokenizer
    return _held(tokenizer, own_file(directory), setting, framed)


def _held(
    tokenizer: "PreTrainedTokenizerBase", file: TokenizersFile | SentencePieceFile, setting: str, framed: bool
) -> "PreTrainedTokenizerBase":
    if (difference := first_difference(tokenizer, file, framed=framed)) is None:
        return tokenizer
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        if isinstance(file, TokenizersFile):
            # An attribute of both releases, typed in neither; tokens that the class itself added go with it.
            setattr(tokenizer, "_tokenizer", cast("TokenizersFile", own_file(file.path.parent)).tokenizer)  # noqa: B010
        else:
            behind = _behind_a_token(tokenizer)
            backend.normalizer = _normalizer_of(file.pieces)
            if _behind_a_token(tokenizer) != behind:
                raise UserError(
                    f"{setting}: {file.path} cannot be read as it is meant ({difference}); save the "
                    "tokenizer as a tokenizer.json"
                )
        if (left := first_difference(tokenizer, file, framed=framed)) is None:
            print(
                f"{setting}: {_software()} reads {file.path} otherwise than it is meant ({difference}); its own rules "
                "are taken"
            )
            return tokenizer
        difference = left
    raise UserError(
        f"{setting}: {_software()} gives other tokens than {file.path}: {difference}; take another release of "
        "transformers, or save the tokenizer as a tokenizer.json that both read alike"
    )


def require_same(tokenizer: "PreTrainedTokenizerBase", directory: Path, setting: str, texts: Sequence[str]) -> None:
    """Compare a tokenizer with its file on further texts.

    Raises:
        UserError: it gives other ids for one.
    """
    file = own_file(directory)
    if (difference := first_difference(tokenizer, file, texts)) is not None:
        raise UserError(f"{setting}: {_software()} gives other tokens than {file.path}: {difference}")


def first_difference(
    tokenizer: "PreTrainedTokenizerBase", file: OwnFile, texts: Sequence[str] = PROBES, *, framed: bool = False
) -> str | None:
    """Where a loaded tokenizer first departs from its file: the text and both tokens."""
    added = ControlTokens(tokenizer.get_added_vocab())
    shift = _shift(tokenizer, file.pieces) if isinstance(file, SentencePieceFile) else 0
    for text in texts:
        if isinstance(file, SentencePieceFile) and added.spelled(text):
            continue
        found, right = token_ids_of(tokenizer, text), file.encode(text)
        if not file.same([id_ - shift for id_ in found], right):
            return _difference(text, found, [id_ + shift for id_ in right], tokenizer)
        if isinstance(file, TokenizersFile):
            if framed and (whole := cast("list[int]", tokenizer(text)["input_ids"])) != (right := file.framed(text)):
                return _difference(text, whole, right, tokenizer)
            decoded = tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if decoded != file.decode(found):
                return f"the tokens of {text!r} are decoded as {decoded!r}, not {file.decode(found)!r}"
    return None


def _shift(tokenizer: "PreTrainedTokenizerBase", pieces: "SentencePieceProcessor") -> int:
    """What a library adds to every id of a SentencePiece model, as for fairseq's; 0 where it is no constant."""
    vocabulary = tokenizer.get_vocab()
    ordinary = (id_ for id_ in range(len(pieces)) if not pieces.is_control(id_) and not pieces.is_unknown(id_))
    shifts = {vocabulary.get(pieces.id_to_piece(id_), -1) - id_ for id_ in ordinary}
    return shifts.pop() if len(shifts) == 1 else 0


def _behind_a_token(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """How a word begins behind an added token, where SentencePiece's rules say nothing."""
    return token_ids_of(tokenizer, "".join([*list(tokenizer.get_added_vocab())[:1], "a"]))


def token_ids_of(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text, without those that only frame one."""
    return cast("list[int]", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def describe_difference(
    text: str, found: Sequence[int], right: Sequence[int], token_of: Callable[[int], object]
) -> str:
    """A text, and the first place at which two lists of its tokens differ."""
    place = next((i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b), min(len(found), len(right)))
    sides = [f"{token_of(ids[place])!s} = {ids[place]}" if place < len(ids) else "nothing" for ids in (found, right)]
    return f"{text!r} has {sides[0]} as its token {place + 1}, not {sides[1]}"


def _difference(text: str, found: Sequence[int], right: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return describe_difference(text, found, right, tokenizer.convert_ids_to_tokens)


class _Normalization:
    """A SentencePiece model's own normalization, for the tokenizers library.

    The library's is another where a combining mark stands behind a character that is replaced: it drops the mark.
    """

    def __init__(self, pieces: "SentencePieceProcessor") -> None:
        self._pieces = pieces

    def normalize(self, normalized: Any) -> None:
        """Replace the text by what SentencePiece makes of it, spaces and the one in front written as it writes them."""
        meant = self._pieces.normalize(normalized.normalized)
        normalized.clear()
        normalized.append(meant)


def _normalizer_of(pieces: "SentencePieceProcessor") -> Any:
    from tokenizers.normalizers import Normalizer

    return Normalizer.custom(_Normalization(pieces))


def _software() -> str:
    from transformers import __version__

    return f"transformers {__version__}"
