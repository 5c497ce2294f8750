"""A PairRM of random weights at a published size, in llm-blender's layout, with a tokenizer trained on given texts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from nemo_sspo.oracle.pairrm.checkpoint import MARKERS
from nemo_sspo.oracle.pairrm.model import PairRMModel


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int
    heads: int


SIZES = {
    "toy": Size(128, 3, 4),
    "DeBERTa-v3-xsmall": Size(384, 12, 6),
    "DeBERTa-v3-base": Size(768, 12, 12),
    "DeBERTa-v3-large": Size(1024, 24, 16),
}
"""The toy is the quickstart's; PairRM itself is a large."""
POOL = Size(hidden=32, layers=1, heads=1)
"""So small that what is left to measure is the scorer around it."""
BUCKETS = 256
PLACES = 2 * BUCKETS
"""Rows of the table of relative positions."""


_TAKEN_FOR_OTHERS = ("alpaca", "llama", "starling-rm", "phi")


def folder_for_checkpoints() -> tempfile.TemporaryDirectory[str]:
    """A new folder. llm-blender adds a token where a backbone's path has "phi" in it, as random names can have."""
    while True:
        folder = tempfile.TemporaryDirectory()
        if not any(name in folder.name for name in _TAKEN_FOR_OTHERS):
            return folder
        folder.cleanup()


def train_tokenizer(texts: Sequence[str], vocabulary: int = 8000) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer with DeBERTa's [CLS] text [SEP]."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_checkpoint(root: Path, size: Size, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Write a checkpoint that both llm-blender and nemo-sspo load."""
    torch.manual_seed(0)
    backbone = root / "backbone"
    tokenizer.save_pretrained(backbone)
    config_of(size, len(tokenizer)).save_pretrained(backbone)
    DebertaV2Model(config_of(size, len(tokenizer))).save_pretrained(backbone)
    model = PairRMModel(DebertaV2Model(config_of(size, len(tokenizer) + len(MARKERS))), size.hidden, n_tasks=2)
    checkpoint = root / "checkpoint"
    checkpoint.mkdir(parents=True)
    save_file(model.state_dict(), checkpoint / "model.safetensors")
    (checkpoint / "config.json").write_text(json.dumps(_ranker(str(backbone))))
    return checkpoint


def config_of(size: Size, vocabulary: int) -> DebertaV2Config:
    """DeBERTa-v3's attention: relative positions in 256 log buckets, shared keys, no absolute positions."""
    return DebertaV2Config(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=BUCKETS,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        initializer_range=0.05,
        pad_token_id=0,
    )


def _ranker(backbone: str) -> dict[str, object]:
    """llm-blender's config.json with the published PairRM's limits."""
    return {
        "ranker_type": "pairranker",
        "model_type": "deberta",
        "model_name": backbone,
        "cache_dir": None,
        "load_checkpoint": None,
        "source_maxlength": 1224,
        "candidate_maxlength": 412,
        "n_tasks": 2,
        "num_pos": 5,
        "num_neg": 5,
        "sub_sampling_mode": "all_pair",
        "sub_sampling_ratio": 0.4,
        "loss_type": "instructgpt",
        "reduce_type": "linear",
        "inference_mode": "bubble",
        "drop_out": 0.05,
        "fp16": True,
    }
