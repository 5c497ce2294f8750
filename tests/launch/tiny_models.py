"""Model directories of a few kilobytes: right in every file that is looked at without a model."""

import json
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

POLICY_CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size": 8,
    "intermediate_size": 16,
    "max_position_embeddings": 8192,
    "vocab_size": 260,
}
ORACLE_CONFIG = {
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2PairRM"],
    "source_prefix_id": 258,
    "cand1_prefix_id": 259,
    "cand2_prefix_id": 260,
    "hidden_size": 2,
    "num_attention_heads": 1,
    "intermediate_size": 3,
    "num_hidden_layers": 1,
    "position_biased_input": False,
}


def oracle_layer(layer: int) -> dict[str, list[int]]:
    """Shapes of a layer of the oracle."""
    matrices = {
        **{f"attention.self.{name}_proj": [2, 2] for name in ("query", "key", "value")},
        "attention.output.dense": [2, 2],
        "attention.output.LayerNorm": [2],
        "intermediate.dense": [3, 2],
        "output.dense": [2, 3],
        "output.LayerNorm": [2],
    }
    return {
        f"pretrained_model.encoder.layer.{layer}.{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in matrices.items()
        for kind in ("weight", "bias")
    }


ORACLE_TENSORS = {
    "pretrained_model.embeddings.word_embeddings.weight": [262, 2],
    "pretrained_model.embeddings.LayerNorm.weight": [2],
    "pretrained_model.embeddings.LayerNorm.bias": [2],
    **oracle_layer(0),
    "head_layer.1.weight": [2, 4],
    "head_layer.1.bias": [2],
    "head_layer.4.weight": [1, 2],
    "head_layer.4.bias": [1],
}
FRAMED = ("[CLS]", "[SEP]", "<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")


POLICY_TENSORS = {
    "model.embed_tokens.weight": [260, 8],
    "lm_head.weight": [260, 8],
    "model.norm.weight": [8],
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(4)
        for name, shape in {
            "input_layernorm": [8],
            "self_attn.q_proj": [128, 8],
            "self_attn.k_proj": [64, 8],
            "self_attn.v_proj": [64, 8],
            "self_attn.o_proj": [8, 128],
            "post_attention_layernorm": [8],
            "mlp.gate_proj": [16, 8],
            "mlp.up_proj": [16, 8],
            "mlp.down_proj": [8, 16],
        }.items()
    },
}


def write_safetensors(path: Path, *names: str, dtype: str = "F32") -> None:
    """A file of 2 x 2 zero matrices of four bytes a number, or of fewer and padding."""
    write_tensors(path, {name: [2, 2] for name in names}, dtype)


def write_tensors(path: Path, shapes: dict[str, list[int]], dtype: str = "F32") -> None:
    """A file of zero tensors of these shapes; four bytes a number, or fewer and padding."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_tokenizer(directory: Path, end: str = "", further: Sequence[str] = ()) -> None:
    """One token per byte, and one for the end of a message where there is one, or `further` ones of a classifier."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([end] if end else list(further))
    if further:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 256), ("[SEP]", 257)]
        )
    tokenizer.save(str(directory / "tokenizer.json"))
    message = f"{{{{ m.role + ': ' + m.content + '{end}\n' }}}}"
    config = {"chat_template": f"{{% for m in messages %}}{message}{{% endfor %}}"}
    config |= {"eos_token": end} if end else {}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_policy(directory: Path) -> Path:
    """A Llama."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(POLICY_CONFIG))
    write_tensors(directory / "model.safetensors", POLICY_TENSORS)
    write_tokenizer(directory, end="<|end|>")
    return directory


def write_oracle(directory: Path) -> Path:
    """A PairRM in the layout of PairRM-hf."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(ORACLE_CONFIG))
    write_tensors(directory / "model.safetensors", ORACLE_TENSORS)
    write_tokenizer(directory, further=FRAMED)
    return directory


def write_reward_model(directory: Path) -> Path:
    """A Llama with one output."""
    directory.mkdir(parents=True)
    config = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", "model.embed_tokens.weight", "score.weight")
    write_tokenizer(directory)
    return directory
