"""A whole model's checkpoint, read and written a few tensors at a time; `weights.py` has what ranks load and save.

What lies where is told by a model on the meta device, so that the keys, and how layers and experts share them, are
Megatron's. The files are torch's distributed checkpoint, by torch's own writer: Megatron's asks for all tensors first.
How many files there are depends on the model's size alone, so that equal weights give equal files on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TypeAlias, cast

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_outplace, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedBase, ShardedTensor
from megatron.core.models.gpt import GPTModel
from torch import Tensor
from torch.distributed.checkpoint import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    FileSystemReader,
    FileSystemWriter,
    LoadPlan,
    ReadItem,
    SavePlan,
    WriteItem,
)
from torch.distributed.checkpoint.metadata import (
    STORAGE_TYPES,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.storage import WriteResult
from typing_extensions import override

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.weights import (
    KEY_PREFIX,
    LAYOUT_METADATA,
    WEIGHTS,
    is_torch_dist,
    make_index_canonical,
    one_rank,
    require_tensors,
    sharded_weights,
    stored_parts,
)
from nemo_sspo.megatron.models.finite import first_not_finite
from nemo_sspo.megatron.runtime.processes import in_processes

Place: TypeAlias = ShardedBase
"""Where a tensor lies in a checkpoint: Megatron's sharded tensor, or what makes several of one. Its `data` is on the
meta device."""


def places_of(build: Callable[[], GPTModel]) -> dict[str, Place]:
    """Of every tensor of the whole model that `build` makes, by its name."""
    with one_rank(), torch.device("meta"):
        return {name.removeprefix(KEY_PREFIX): place for name, place in sharded_weights(build()).items()}


def write_weights(
    places: Mapping[str, Place], read: Callable[[str], Tensor], directory: Path, *, file_bytes: int
) -> None:
    """Write a checkpoint of the tensors that `read` gives by name, on the host; several processes write its files.

    Each is of `file_bytes` at most, but for one that a single tensor fills. Raises UserError where a tensor holds NaN
    or Inf.
    """
    target = directory / WEIGHTS
    target.mkdir(parents=True, exist_ok=True)
    writer = FileSystemWriter(target)
    planner = _Planner(places, read, what=f"{directory}: not saved")
    plans, metadata = planner.create_global_plan([planner.file_of(names) for names in _files(places, file_bytes)])
    plans = writer.prepare_global_plan(plans)

    def write(plan: SavePlan) -> list[WriteResult]:
        return writer.write_data(plan, planner).wait()

    writer.finish(metadata, in_processes(write, plans))
    make_index_canonical(target / ".metadata")
    torch.save({"content_metadata": LAYOUT_METADATA}, target / "common.pt")
    save_config(CheckpointingConfig(sharded_backend="torch_dist", sharded_backend_version=1), str(target))


def _files(places: Mapping[str, Place], most: int) -> Iterator[list[str]]:
    """The names of each file, in their order."""
    names: list[str] = []
    size = 0
    for name, place in places.items():
        if names and size + place.data.nbytes > most:
            yield names
            names, size = [], 0
        names.append(name)
        size += place.data.nbytes
    yield names


class _Planner(DefaultSavePlanner):
    """Gives torch's writer each tensor when its turn comes."""

    def __init__(self, places: Mapping[str, Place], read: Callable[[str], Tensor], what: str) -> None:
        super().__init__(flatten_state_dict=False)
        self._places = places
        self._read = read
        self._what = what
        self._names: dict[MetadataIndex, str] = {}
        self._parts: dict[MetadataIndex, Tensor] = {}
        """Of the tensor that was read last."""

    def file_of(self, names: Sequence[str]) -> SavePlan:
        """These tensors, in this order."""
        items = []
        for name in names:
            for part in stored_parts(self._places[name]):
                properties = TensorProperties(dtype=part.dtype)
                data = TensorWriteData(_chunk(part), properties, torch.Size(part.global_shape))
                items.append(WriteItem(_index(part), WriteItemType.SHARD, tensor_data=data))
                self._names[_index(part)] = name
        return SavePlan(items)

    @override
    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """A part, of which the others of the same tensor come next."""
        if write_item.index not in self._parts:
            self._release()  # before the next tensor is read
            name = self._names[write_item.index]
            tensor = self._read(name)
            if broken := first_not_finite([(name, tensor)]):
                raise UserError(f"{self._what}: {broken} is not finite")
            filled = _with_data(self._places[name], tensor)
            self._parts = {_index(part): _own(_stored(part)) for part in stored_parts(filled)}
        return self._parts[write_item.index]

    def _release(self) -> None:
        """Torch's writer of 2.9 keeps every tensor of a file until the file is written, and reads none again."""
        for part in self._parts.values():
            part.untyped_storage().resize_(0)
        self._parts = {}


def _own(tensor: Tensor) -> Tensor:
    """The tensor with a storage that holds nothing else (of another, torch's writer would keep a copy) and can be freed
    (a file's cannot)."""
    storage = tensor.untyped_storage()
    return tensor if storage.nbytes() == tensor.nbytes and storage.resizable() else tensor.clone()


def _with_data(place: Place, tensor: Tensor) -> Place:
    if (tensor.shape, tensor.dtype) != (place.data.shape, place.data.dtype):
        raise RuntimeError(f"{place.key}: {tensor.dtype} {tuple(tensor.shape)} in the place of {place.data}")
    return dataclasses.replace(place, data=tensor)


def _stored(part: ShardedTensor) -> Tensor:
    """With the axis that counts the layers, where these lie in one tensor."""
    return part.data.view((1,) * part.prepend_axis_num + part.local_shape)


def _chunk(part: ShardedTensor) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(part.global_offset), _stored(part).shape)


def _index(part: ShardedTensor) -> MetadataIndex:
    return MetadataIndex(part.key, torch.Size(part.global_offset))


class StoredWeights:
    """A checkpoint that any layout wrote, of which a tensor of the whole model is read at a time."""

    def __init__(self, places: Mapping[str, Place], directory: Path) -> None:
        """Raises UserError where it is no checkpoint of this project, or lacks one of `places`."""
        self._places = places
        self._source = require_tensors(places.values(), directory)
        self._files = FileSystemReader(self._source)
        self._index = None
        if is_torch_dist(self._source):
            self._index = self._files.read_metadata()
            self._files.set_up_storage_reader(self._index, is_coordinator=True)

    def read(self, name: str) -> Tensor:
        """In the model's dtype, on the host. Raises UserError where it is no number."""
        place = self._places[name]
        wanted = _with_data(place, torch.empty_like(place.data, device="cpu"))
        tensor = self._read_legacy(wanted) if self._index is None else self._read(wanted, self._index)
        if broken := first_not_finite([(name, tensor)]):
            raise UserError(f"{self._source}: {broken} is not finite")
        return tensor

    def _read(self, wanted: Place, stored: Metadata) -> Tensor:
        structure = [wanted] if isinstance(wanted, ShardedTensor) else wanted.build()
        parts = {_index(part): part for part in nested_values(structure)}
        items = [item for part in parts.values() for item in self._items(part, stored.state_dict_metadata[part.key])]
        self._files.read_data(LoadPlan(items), _Targets({index: _stored(part) for index, part in parts.items()})).wait()
        if isinstance(wanted, ShardedTensor):
            return wanted.data
        return wanted.merge_fn(dict_list_map_outplace(lambda part: part.data, structure))

    def _items(self, part: ShardedTensor, stored: STORAGE_TYPES) -> list[ReadItem]:
        """What is read for a part: of every stored chunk what lies in it."""
        stored = cast(TensorStorageMetadata, stored)
        if tuple(stored.size) != tuple(part.global_shape):
            raise UserError(
                f"{self._source}: {part.key!r} is {tuple(stored.size)}, the model's is {tuple(part.global_shape)}; it "
                "is another model's checkpoint"
            )
        wanted = _chunk(part)
        items = create_read_items_for_chunk_list(part.key, stored, [wanted])
        if sum(prod(item.lengths) for item in items) != part.data.numel():
            raise RuntimeError(f"{self._source}: the chunks of {part.key!r} do not make the whole of it")
        return items

    def _read_legacy(self, wanted: Place) -> Tensor:
        with one_rank():
            return dist_checkpointing.load({"": wanted}, str(self._source), validate_access_integrity=False)[""]


class _Targets(DefaultLoadPlanner):
    """Where torch's reader puts what it reads."""

    def __init__(self, tensors: Mapping[MetadataIndex, Tensor]) -> None:
        super().__init__()
        self._tensors = tensors

    @override
    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        """That part's."""
        return self._tensors[index]
