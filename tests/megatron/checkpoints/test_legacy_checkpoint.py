"""Checkpoints of the zarr format that megatron-core wrote before ``torch_dist``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import torch
import zarr
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import tensorstore

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS, one_rank
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.nemo.convert import export_policy


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


def test_a_zarr_checkpoint_loads_exactly(imported: Path, policy: Path, tmp_path: Path) -> None:
    as_zarr(imported / "nemo", tmp_path / "nemo")
    export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)
    found, expected = (dict(SafetensorsDirectory(path)) for path in (tmp_path / "hf", policy))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_zarr_checkpoint_is_refused_where_it_cannot_be_read(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_zarr(imported / "nemo", tmp_path / "nemo")
    monkeypatch.setattr(tensorstore, "HAVE_TENSORSTORE", False)
    with pytest.raises(UserError, match=r"nemo/weights: stored as 'zarr'.* Hugging Face model, or install tensorstore"):
        export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)


def test_an_unknown_format_is_refused(imported: Path, tmp_path: Path) -> None:
    write_metadata(tmp_path / "nemo" / WEIGHTS, "stone tablets")
    with pytest.raises(UserError, match="stored as 'stone tablets'"):
        export_policy(tmp_path / "nemo", imported / "hf", tmp_path / "hf", torch.float32)
