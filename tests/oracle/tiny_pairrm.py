"""Make a random PairRM checkpoint in both published layouts, small enough for a test."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from nemo_sspo.oracle.pairrm.checkpoint import MARKER_ID_KEYS, MARKERS
from nemo_sspo.oracle.pairrm.model import PairRMModel

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "How do I sort a list of numbers in Python? Use sorted() or list.sort().",
    "Explain preference optimization with self play to a newcomer.",
    "Über die Brücke, naïve café; 今日は良い天気です。",
] * 20


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A SentencePiece-like Unigram tokenizer with DeBERTa's [CLS] text [SEP]."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _backbone_config(vocabulary: int) -> DebertaV2Config:
    """DeBERTa-v3's attention: relative positions in log buckets, shared keys, no absolute positions."""
    return DebertaV2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=64,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        initializer_range=0.3,
        pad_token_id=0,
    )


def make_checkpoints(root: Path) -> dict[str, Path]:
    """Directories of one random model: ``hf``, ``llm-blender`` (safetensors) and ``pickle`` (pytorch_model.bin)."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    backbone_dir = root / "backbone"
    DebertaV2Model(_backbone_config(len(tokenizer))).save_pretrained(backbone_dir)
    tokenizer.save_pretrained(backbone_dir)

    tokenizer.add_tokens(list(MARKERS))
    config = _backbone_config(len(tokenizer))
    state = PairRMModel(DebertaV2Model(config), config.hidden_size, n_tasks=2).state_dict()

    paths = {name: root / name for name in ("hf", "llm-blender", "pickle")}
    for path in paths.values():
        path.mkdir()
    marker_ids = {MARKER_ID_KEYS[marker]: tokenizer.convert_tokens_to_ids(marker) for marker in MARKERS}
    hf_config = config.to_dict() | marker_ids | {"architectures": ["DebertaV2PairRM"], "n_tasks": 2, "drop_out": 0.05}
    (paths["hf"] / "config.json").write_text(json.dumps(hf_config))
    tokenizer.save_pretrained(paths["hf"])
    save_file(state, paths["hf"] / "model.safetensors")

    ranker = ranker_config(str(backbone_dir))
    for name in ("llm-blender", "pickle"):
        (paths[name] / "config.json").write_text(json.dumps(ranker))
    save_file(state, paths["llm-blender"] / "model.safetensors")
    torch.save(state, paths["pickle"] / "pytorch_model.bin")
    return paths


def ranker_config(backbone: str) -> dict:
    """llm-blender's config.json, as llm-blender/PairRM publishes it."""
    return {
        "ranker_type": "pairranker",
        "model_type": "deberta",
        "model_name": backbone,
        "cache_dir": None,
        "load_checkpoint": None,
        "source_maxlength": SOURCE_MAX,
        "candidate_maxlength": CANDIDATE_MAX,
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


SOURCE_MAX, CANDIDATE_MAX = 48, 24
"""Small limits, so that tests reach them."""
