"""Which file of a model directory its tokenizer is kept in."""

from pathlib import Path

TOKENIZER_JSON = "tokenizer.json"
SENTENCEPIECE_FILES = ("spm.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
VOCABULARY_FILES = ("vocab.json", "vocab.txt")
_OTHERS = ("tekken.json", "*.tiktoken", "*.model", "*.spm", "bpe.codes")
"""Kinds that no program of this project reads."""


def tokenizer_file(directory: Path) -> Path | None:
    """The file that says a tokenizer's ids: of several the one that libraries take. None where there is none."""
    if (path := directory / TOKENIZER_JSON).is_file():
        return path
    if (pieces := sentencepiece_file(directory)) is not None:
        return pieces
    others = (path for pattern in (*VOCABULARY_FILES, *_OTHERS) for path in sorted(directory.glob(pattern)))
    return next((path for path in others if path.is_file()), None)


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
