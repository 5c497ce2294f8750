"""The rules of a plain vocabulary, put together from parts of the tokenizers library: what its class stands for,
whatever the release of transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.plain_vocabulary import PlainVocabulary, Rules
from nemo_sspo.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""Where Qwen 2 and 3 cut a text, by their published tokenizers."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def tokenizer_of(plain: PlainVocabulary, named: Mapping[str, str]) -> "Tokenizer":
    """A vocabulary with its rules, without the tokens that are added to it.

    Raises:
        UserError: it lacks a token that its rules need; a file cannot be read.
    """
    return _wordpiece(plain, named) if plain.rules == "wordpiece" else _byte_level(plain, named)


def added_tokens(directory: Path, vocabulary: Vocabulary, rules: Rules) -> list["AddedToken"]:
    """Tokens that are found in a text before anything else is, in the order of their ids."""
    from tokenizers import AddedToken

    found = []
    stored = _token_flags(directory)
    for _, token in sorted(vocabulary.tokens.items()):
        if token in vocabulary.added:
            special = token in vocabulary.control
            flags = {"normalized": not special, **stored.get(token, {})}
            if rules == "roberta" and token == vocabulary.named.get("mask_token"):
                flags = {"lstrip": True, **flags}
            found.append(AddedToken(token, special=special, **flags))
    return found


def _token_flags(directory: Path) -> dict[str, dict[str, bool]]:
    """What the files beside a vocabulary say of how a token is found, by token; the last of them counts."""
    config = json_or_empty(directory / "tokenizer_config.json")
    values: list[Any] = list(json_or_empty(directory / "special_tokens_map.json").values())
    values += [value for name, value in config.items() if name.endswith("_token")]
    decoder = config.get("added_tokens_decoder")
    values += decoder.values() if isinstance(decoder, dict) else []
    flags = {}
    for value in values:
        if isinstance(value, dict) and isinstance(value.get("content"), str):
            flags[value["content"]] = {flag: bool(value[flag]) for flag in _FLAGS if flag in value}
    return flags


def _wordpiece(plain: PlainVocabulary, named: Mapping[str, str]) -> "Tokenizer":
    """As BERT's authors have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    (unknown, _), sep, cls = (_token(name, plain, named) for name in ("unk_token", "sep_token", "cls_token"))
    tokenizer = Tokenizer(models.WordPiece(dict(plain.ids), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=plain.setting("tokenize_chinese_chars", True),
        strip_accents=plain.setting("strip_accents", None),
        lowercase=plain.setting("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return tokenizer


def _byte_level(plain: PlainVocabulary, named: Mapping[str, str]) -> "Tokenizer":
    """As GPT-2 has it; Qwen composes a text first (NFC) and cuts it otherwise, RoBERTa frames it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    try:
        ids, merges = models.BPE.read_file(str(plain.path), str(plain.merges))
        tokenizer = Tokenizer(models.BPE(ids, merges))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{plain.merges}: not the merges of {plain.path.name} ({error})") from None
    space = bool(plain.setting("add_prefix_space", None))
    if plain.rules == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    if plain.rules == "roberta":
        sep, cls = (_token(name, plain, named) for name in ("sep_token", "cls_token"))
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    elif plain.setting("add_bos_token", False):
        bos, id_ = _token("bos_token", plain, named)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, id_)]
        )
    return tokenizer


def _token(name: str, plain: PlainVocabulary, named: Mapping[str, str]) -> tuple[str, int]:
    """A token that the rules need, and its id."""
    if (token := named.get(name, "")) not in plain.ids:
        raise UserError(f"{plain.path}: lacks the {name} {token!r}; name the right one in tokenizer_config.json")
    return token, plain.ids[token]
