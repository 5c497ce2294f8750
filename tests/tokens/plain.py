"""Models whose tokenizer is a plain vocabulary: vocab.txt, or vocab.json with merges.txt."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import pre_tokenizers

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNCASED = (*_BERT, "sort", "##ing", "##s", "a", "cafe", "##e", "日", "本")
CASED = (*_BERT, "Sort", "sort", "##ing", "Café", "日", "本")


def wordpiece(directory: Path, tokens: Sequence[str], **config: object) -> Path:
    """A BERT's tokenizer."""
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return _described(directory, {"model_type": "bert", "vocab_size": len(tokens)}, config)


def byte_level(directory: Path, special: Sequence[str], **config: object) -> Path:
    """Every byte, and the word "the" with and without a space in front."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["t h", "th e", "Ġ the"]
    tokens = [*special, *letters, *(merge.replace(" ", "") for merge in merges)]
    (directory / "vocab.json").write_text(json.dumps({token: id_ for id_, token in enumerate(tokens)}))
    (directory / "merges.txt").write_text("".join(f"{line}\n" for line in ["#version: 0.2", *merges]), encoding="utf-8")
    return _described(directory, {"model_type": "llama", "vocab_size": len(tokens)}, config)


def _described(directory: Path, model: dict[str, object], config: dict[str, object]) -> Path:
    (directory / "config.json").write_text(json.dumps(model))
    given = {name: value for name, value in config.items() if value is not None}
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    return directory
