"""SentencePiece models with SentencePiece's own normalization, small enough for a test."""

import io
import json
from pathlib import Path

TEXTS = [
    "Pick one sauce, please... 1/2 cup of it.",
    "How do I sort a list of numbers in Python? Use sorted() or list.sort().",
    "The quick brown fox jumps over the lazy dog, and fine flour flows from the office.",
    "Explain preference optimization with self play to a newcomer!",
]


def train_spm(path: Path, model_type: str, **options: object) -> Path:
    """Train a model of a few hundred pieces and write it to `path`."""
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 30),
        model_writer=content,
        model_type=model_type,
        vocab_size=options.pop("vocab_size", 200),
        minloglevel=2,
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return path


def make_deberta(directory: Path) -> Path:
    """A tokenizer as microsoft/deberta-v3-* has it: spm.model and the names of no special token."""
    pieces = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    names = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    train_spm(directory / "spm.model", "unigram", hard_vocab_limit=False, **pieces, **names)
    (directory / "config.json").write_text(json.dumps({"model_type": "deberta-v2", "vocab_size": 300}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    return directory


def make_mistral(directory: Path, **options: object) -> Path:
    """A tokenizer as Mistral's first release has it: tokenizer.model and a template without roles."""
    train_spm(directory / "tokenizer.model", "bpe", vocab_size=420, byte_fallback=True, **options)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 420, "eos_token_id": 2}))
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "chat_template": template, **tokens}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
