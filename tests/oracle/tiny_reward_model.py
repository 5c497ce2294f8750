"""Make random reward models: a decoder with a chat template, and an encoder that reads a pair of texts."""

from pathlib import Path

import torch
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tests.oracle.tiny_pairrm import make_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ '[CLS]' if loop.first else '' }}{{ m['role'] + ': ' + m['content'] + '[SEP]' }}{% endfor %}"
)
MAX_TOKENS = 100


def make_chat_model(path: Path, *, pad: bool = True, labels: int = 1) -> Path:
    """A Llama whose reward is read at the last token, as decoder reward models are."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = MAX_TOKENS
    if not pad:
        tokenizer.pad_token = None
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=labels,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_pair_model(path: Path) -> Path:
    """A DeBERTa without a chat template."""
    tokenizer = make_tokenizer()
    torch.manual_seed(2)
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=16,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
