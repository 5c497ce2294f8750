from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
from safetensors.torch import save_file

from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory, WeightFiles, copy_side_files


def described(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def write(directory: Path, tensors: Mapping[str, torch.Tensor], file_bytes: int) -> None:
    (directory / "config.json").write_text("{}")
    files = WeightFiles(directory, described(tensors), file_bytes=file_bytes)
    for file in files.names:
        files.write(file, lambda names: (tensors[name] for name in names))
    files.finish()


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def tensors(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    """Of which some are no whole number of 8 bytes, none is stored as it lies, and order by name is another one."""
    shapes = {"b.10": (7, 3), "b.9": (10, 5), "a": (1,), "c": (4, 4, 4), "A": (3,)}
    return {name: torch.randn(*shape, 2).to(request.param)[..., 0] for name, shape in shapes.items()}


def test_sharded_weights_read_back(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write(tmp_path, tensors, 250)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    directory = SafetensorsDirectory(tmp_path)
    assert directory.keys() == tensors.keys()
    assert all(torch.equal(directory[name], tensor) for name, tensor in tensors.items())


def test_a_file_has_the_bytes_of_the_library(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write(tmp_path, tensors, 2**20)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_tensor_that_is_not_the_described_one_is_no_file(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for name, other in (("b.9", tensors["b.9"].T), ("c", tensors["c"].to(torch.float16))):
        changed = tensors | {name: other}
        files = WeightFiles(tmp_path, described(tensors), file_bytes=2**20)
        with pytest.raises(RuntimeError, match=f"{name} is "):
            files.write("model.safetensors", lambda names, changed=changed: (changed[name] for name in names))


def test_of_a_file_one_tensor_is_held_at_a_time(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    held: list[weakref.ref] = []

    def stream(names: Sequence[str]) -> Iterator[torch.Tensor]:
        for name in names:
            assert not any(reference() is not None for reference in held)
            yield made(name)

    def made(name: str) -> torch.Tensor:
        tensor = tensors[name].clone()
        held.append(weakref.ref(tensor))
        return tensor

    WeightFiles(tmp_path, described(tensors), file_bytes=2**20).write("model.safetensors", stream)
    assert len(held) == len(tensors)


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_exported_file_has_the_permissions_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path, {f"t{number}": torch.zeros(10, number + 1) for number in range(5)}, 250)
        write(tmp_path, {"t": torch.zeros(2)}, 250)
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
