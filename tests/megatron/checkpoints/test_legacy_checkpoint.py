"""Checkpoints of the zarr format that megatron-core wrote before ``torch_dist``."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
import zarr
from megatron.core import dist_checkpointing

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS, one_rank
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory

READS_ZARR = find_spec("megatron.core.dist_checkpointing.strategies.tensorstore") is not None


def write_metadata(directory: Path, backend: str) -> None:
    directory.mkdir(parents=True)
    (directory / "metadata.json").write_text(json.dumps({"sharded_backend": backend, "sharded_backend_version": 1}))
    torch.save({}, directory / "common.pt")


def as_zarr(checkpoint: Path, directory: Path) -> None:
    """The weights of a checkpoint as megatron-core 0.5 stored them: one zarr array (format 2) per tensor."""
    with one_rank():
        tensors = dist_checkpointing.load_plain_tensors(str(checkpoint / WEIGHTS))
    write_metadata(directory / WEIGHTS, "zarr")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):  # the common state is among them
            continue
        values = tensor.numpy()
        chunks = tuple(-(-length // 2) for length in values.shape)
        array = zarr.create_array(
            store=str(directory / WEIGHTS / name),
            shape=values.shape,
            chunks=chunks,
            dtype=values.dtype,
            zarr_format=2,
            compressors=None,
        )
        array[...] = values


@pytest.mark.skipif(not READS_ZARR, reason="this megatron-core reads no zarr")
def test_a_zarr_checkpoint_loads_exactly(binding: Binding, imported: Path, small_llama: Path, tmp_path: Path) -> None:
    as_zarr(imported / "nemo", tmp_path / "nemo")
    binding.export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)
    found, expected = (dict(SafetensorsDirectory(path)) for path in (tmp_path / "hf", small_llama))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_zarr_checkpoint_is_refused_where_it_cannot_be_read(
    binding: Binding, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_zarr(imported / "nemo", tmp_path / "nemo")
    if READS_ZARR:
        monkeypatch.setattr("megatron.core.dist_checkpointing.strategies.tensorstore.HAVE_TENSORSTORE", False)
    with pytest.raises(UserError, match=r"nemo/weights: stored as 'zarr'.* Hugging Face model, or install tensorstore"):
        binding.export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)


def test_an_unknown_format_is_refused(binding: Binding, imported: Path, tmp_path: Path) -> None:
    write_metadata(tmp_path / "nemo" / WEIGHTS, "stone tablets")
    with pytest.raises(UserError, match="stored as 'stone tablets'"):
        binding.export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)
