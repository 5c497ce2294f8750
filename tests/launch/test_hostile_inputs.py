"""Whatever a file holds, or is, a dry run ends: with problems of one line each, or none (`hostile.py`).

Mutations of a ready run's files, drawn by a seed that the test's name shows.
"""

import json
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.launch import ready_run
from tests.launch.hostile import VALUES, dry_run, written

SEEDS, MUTATIONS = range(8), 15
JSON_FILES = (
    *(f"policy/{name}.json" for name in ("config", "tokenizer", "tokenizer_config", "generation_config")),
    *(f"policy/{name}.json" for name in ("special_tokens_map", "added_tokens", "model.safetensors.index")),
    *(f"oracle/{name}.json" for name in ("config", "tokenizer", "tokenizer_config")),
    *(f"encoder/{name}.json" for name in ("config", "modules", "sentence_bert_config", "config_sentence_transformers")),
    *("encoder/tokenizer_config.json", "prompts.jsonl"),
)
WEIGHTS = ("policy/model.safetensors", "oracle/model.safetensors")
TABLE = "prompts.parquet"
KEYS = (
    *("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size", "num_hidden_layers"),
    *("rope_scaling", "rope_parameters", "text_config", "layer_types", "eos_token_id", "max_position_embeddings"),
    *("chat_template", "added_tokens_decoder", "eos_token", "tokenizer_class", "auto_map", "model_type", "weight_map"),
    *("prompts", "default_prompt_name", "max_seq_length", "source_maxlength", "ranker_type", "model_name", "path"),
    *("prompt", "messages", "system", "quantization_config", "architectures", "model_max_length", "num_labels"),
)


def mutate_json(draw: random.Random, path: Path) -> None:
    """A value somewhere inside becomes another one, or a key more is there."""
    try:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        content = json.loads(lines[0])
    except (OSError, ValueError, IndexError, RecursionError):
        lines, content = ["{}"], {}
    whole: dict[str, Any] = {"": content}
    node: Any = whole
    key: Any = ""
    while isinstance(inner := node[key], dict | list) and inner and draw.random() < 0.7:
        node, key = inner, draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    if isinstance(node[key], dict) and draw.random() < 0.7:
        node, key = node[key], draw.choice(KEYS)
    node[key] = draw.choice(VALUES)
    path.write_bytes(b"\n".join([written(whole[""]), *(line.encode() for line in lines[1:])]))


def mutate_header(draw: random.Random, path: Path) -> None:
    """A safetensors header with another value, length or form."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    tensor = draw.choice(list(header))
    field = draw.choice(("dtype", "shape", "data_offsets"))
    header[tensor][field] = draw.choice([*VALUES, [-1, 2], [2**62, 2**62], ["a"], [1.5], [0], [1] * 2000, "F8_E4M3"])
    text = written(draw.choice([header, header, header, [header], list(header), 3]))
    size = draw.choice([len(text), len(text), len(text), 0, 2**40, 2**64 - 1, max(0, len(text) - 3)])
    path.write_bytes(struct.pack("<Q", size) + text + raw[8 + length :])


def mutate_bytes(draw: random.Random, path: Path) -> None:
    """Cut, flipped, filled, in another encoding, or marked as one."""
    raw = path.read_bytes() if path.is_file() else b"{}"
    place = draw.randrange(len(raw)) if raw else 0
    changed = [
        *(b"", b"\0" * 100, raw[:place], b"\xef\xbb\xbf" + raw, b"[" * 10_000, b"\xff" + raw, raw + raw),
        raw[:place] + bytes([draw.randrange(256)]) + raw[place + 1 :],
        raw.decode(errors="replace").encode("utf-16"),
    ]
    path.write_bytes(draw.choice(changed))


def mutate_kind(draw: random.Random, path: Path) -> None:
    """No file any more: nothing, a folder, a pipe, a socket, a device, or a link to itself, to nowhere, or to more than
    can be read. (A root reads what it has no right to, so rights are not tried.)"""
    path.unlink(missing_ok=True)
    folders = ["/proc/self/fd", "/"]
    links = ["/dev/zero", "/dev/full", "/dev/null", "/dev/tty", path.name, "absent", "/proc/self/mem", "x" * 255]
    made: list[Callable[[], object]] = [
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: _socket(path),
        lambda: path.symlink_to(draw.choice([*links, *links, *folders])),
    ]
    draw.choice(made)()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:  # its name lies there when it is closed
        listening.bind(os.path.relpath(path))


def mutate_table(draw: random.Random, path: Path) -> None:
    """A Parquet file with another footer, or columns of types that hold no text."""
    raw = path.read_bytes()
    if draw.random() < 0.6:
        footer = struct.unpack("<I", raw[-8:-4])[0]
        start = len(raw) - 8 - footer
        place = draw.randrange(start, len(raw))
        size = struct.pack("<I", draw.choice([0, 1, footer - 1, footer + 9, 2**31, 2**32 - 1]))
        path.write_bytes(
            draw.choice(
                [
                    raw[:place] + bytes([draw.randrange(256)]) + raw[place + 1 :],
                    raw[:place] + raw[-8:],
                    raw[:-8] + size + raw[-4:],
                ]
            )
        )
        return
    kinds = [
        pa.array([[{"role": "user", "content": 1}]]),
        pa.array([{"role": "user"}]),
        pa.array([[["a"]]]),
        pa.array([b"\xff"]),
        pa.array([1.5]),
        pa.array([[(1, "a")]], pa.map_(pa.int64(), pa.string())),
        pa.array(["a"]).dictionary_encode(),
        pa.array([None], pa.null()),
        pa.array([10**15], pa.timestamp("us")),
    ]
    column = draw.choice(["prompt", "messages", "conversations", "instruction", "system"])
    names = [column, draw.choice(["prompt", column])]
    pq.write_table(pa.Table.from_arrays([draw.choice(kinds), draw.choice(kinds)], names=names), path)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dry_run_of_mutated_files_ends_in_lines(seed: int, place: Path) -> None:
    draw = random.Random(seed)
    refused = 0
    for number in range(MUTATIONS):
        root = place / str(number)
        root.mkdir()
        os.chdir(root)
        ready_run.write(root)
        pq.write_table(pa.table({"prompt": [f"Question {place}?" for place in range(30)]}), root / TABLE)
        file = root / draw.choice((*JSON_FILES, *WEIGHTS, *WEIGHTS, TABLE, TABLE))
        own = {".safetensors": mutate_header, ".parquet": mutate_table}.get(file.suffix, mutate_json)
        mutate = draw.choice([mutate_bytes, mutate_kind, *[own] * 5])
        what = f"seed {seed}, mutation {number}: {mutate.__name__} of {file.relative_to(root)}"
        mutate(draw, file)
        overrides = (
            *ready_run.OVERRIDES,
            "encoder.path=encoder",
            *((f"prompts={TABLE}",) if file.name == TABLE else ()),
        )
        found = dry_run(what, overrides)
        refused += bool(found)
    assert refused > MUTATIONS / 4  # the mutations are no matter of taste
