"""Whatever a file holds, a dry run ends: with problems of one line each, or none; no traceback, no hang, little memory.

Mutations of a ready run's files, drawn by a seed that the test's name shows.
"""

import json
import os
import random
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.models import check_encoder, check_policy
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.checks.oracle import check_oracle
from nemo_sspo.launch.checks.prompts import check_prompts
from nemo_sspo.launch.checks.responses import check_responses
from nemo_sspo.launch.preflight import check_candidates, check_run_directory, problems
from tests.launch import ready_run

CHECKS = (
    check_prompts,
    check_responses,
    check_policy,
    check_oracle,
    check_encoder,
    check_candidates,
    check_run_directory,
)
SECONDS, MEMORY_KIB = 30, 2**20
SEEDS, MUTATIONS = range(8), 15
JSON_FILES = (
    *(f"policy/{name}.json" for name in ("config", "tokenizer", "tokenizer_config", "generation_config")),
    *(f"policy/{name}.json" for name in ("special_tokens_map", "added_tokens", "model.safetensors.index")),
    *(f"oracle/{name}.json" for name in ("config", "tokenizer", "tokenizer_config")),
    *(f"encoder/{name}.json" for name in ("config", "modules", "sentence_bert_config", "config_sentence_transformers")),
    *("encoder/tokenizer_config.json", "prompts.jsonl"),
)
WEIGHTS = ("policy/model.safetensors", "oracle/model.safetensors")
DEEP, DIGITS = "@deep@", "@digits@"
"""What Python's own writer refuses to write."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 10**400, 1.5, -0.5, float("nan"), float("inf"), 1e308),
    *("", "x", "\0", "\ud800", "a" * 300, "a" * 20_000, "../..", "/dev/zero", "{{", "[CLS]", "<|source|>", "llama"),
    *([], {}, [[]], [0], [None], {"": None}, {"content": 1}, {"type": "x"}, DEEP, DIGITS),
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
)
KEYS = (
    *("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size", "num_hidden_layers"),
    *("rope_scaling", "rope_parameters", "text_config", "layer_types", "eos_token_id", "max_position_embeddings"),
    *("chat_template", "added_tokens_decoder", "eos_token", "tokenizer_class", "auto_map", "model_type", "weight_map"),
    *("prompts", "default_prompt_name", "max_seq_length", "source_maxlength", "ranker_type", "model_name", "path"),
    *("prompt", "messages", "system", "quantization_config", "architectures", "model_max_length", "num_labels"),
)


def written(value: object) -> bytes:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{DIGITS}"', "9" * 5000).encode()


def mutate_json(draw: random.Random, path: Path) -> None:
    """A value somewhere inside becomes another one, or a key more is there."""
    try:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        content = json.loads(lines[0])
    except (OSError, ValueError, IndexError, RecursionError):
        lines, content = ["{}"], {}
    whole = {"": content}
    node, key = whole, ""
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
    """No file any more: nothing, a folder, a pipe, a device, a link to itself or to nowhere."""
    path.unlink(missing_ok=True)
    made: list[Callable[[], object]] = [
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(draw.choice(["/dev/zero", "/dev/null", path.name, "absent", "/proc/self/mem"])),
    ]
    draw.choice(made)()


@contextmanager
def limited(what: str) -> Iterator[None]:
    def late(_signal: int, _frame: object) -> None:
        raise AssertionError(f"{what}: not over after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dry_run_of_mutated_files_ends_in_lines(seed: int, place: Path) -> None:
    draw = random.Random(seed)
    refused = 0
    for number in range(MUTATIONS):
        root = place / str(number)
        root.mkdir()
        os.chdir(root)
        ready_run.write(root)
        file = root / draw.choice((*JSON_FILES, *WEIGHTS, *WEIGHTS))
        kinds = [mutate_bytes, mutate_kind, *[mutate_header if file.suffix == ".safetensors" else mutate_json] * 5]
        mutate = draw.choice(kinds)
        what = f"seed {seed}, mutation {number}: {mutate.__name__} of {file.relative_to(root)}"
        mutate(draw, file)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with limited(what):
            experiment = load_experiment(["experiment=quickstart", *ready_run.OVERRIDES, "encoder.path=encoder"])
            try:
                found = problems(experiment, CHECKS)
                list(notes(experiment))
            except Exception as error:
                raise AssertionError(f"{what}: {file.read_bytes()[:300] if file.is_file() else file}") from error
        assert all("\n" not in line and len(line) < 4000 for line in found), what
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB, what
        refused += bool(found)
    assert refused > MUTATIONS / 4  # the mutations are no matter of taste
