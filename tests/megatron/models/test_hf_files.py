from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch

from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory, copy_side_files, write_tensors


def test_sharded_weights_read_back(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.randn(10, number + 1) for number in range(5)}
    (tmp_path / "config.json").write_text("{}")
    write_tensors(tensors, tmp_path, shard_bytes=250)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    directory = SafetensorsDirectory(tmp_path)
    assert directory.keys() == tensors.keys()
    assert all(torch.equal(directory[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_exported_file_has_the_permissions_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "config.json").write_text("{}")
        write_tensors({f"t{number}": torch.zeros(10, number + 1) for number in range(5)}, tmp_path, shard_bytes=250)
        write_tensors({"t": torch.zeros(2)}, tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) > 3
    assert set(modes.values()) == {0o666 & ~umask}


def test_what_the_export_needs_travels_and_nothing_else(tmp_path: Path) -> None:
    """An adapter's configuration would send a loader to another model, a stale index to other weights."""
    needed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}
    needed |= {"special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"}
    needed |= {"additional_chat_templates/tool_use.jinja", "qwen.tiktoken", "LICENSE", "USE_POLICY.md"}
    others = {"adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json", "params.json"}
    others |= {"trainer_state.json", "training_args.json", "all_results.json", "hf_quant_config.json", "README.md"}
    others |= {"notes.txt", "modeling.py", "optimizer.pt", "model.safetensors", "LICENSES/MIT.txt"}
    for name in needed | others:
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    copy_side_files(tmp_path / "from", tmp_path / "to")
    copied = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert copied == needed
