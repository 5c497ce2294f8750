"""Model weights as ``torch_dist`` checkpoints, the same files whatever the layout that wrote them.

What a step publishes is weights only, below ``weights/``, under the keys that NeMo's strategy uses, so that
``MegatronStrategy`` restores them in any TP, PP or VPP layout. The state to resume from in the middle of a step
(optimizer, scheduler, RNG) is the trainer's own and lies in the step's scratch directory; see `checkpoints/states.py`.

torch's distributed checkpoint pickles its index (``.metadata``) and Megatron its common state (``common.pt``; from
megatron-core 0.19 on an entry beside the tensors, of which plain values alone are read). Both are loaded only from
artifacts of this project, whose manifest hashes were verified when the artifact was opened.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException, maybe_load_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.validation import StrictHandling
from megatron.core.transformer.module import MegatronModule
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.writer_queue import forget_writers, serve_writers
from nemo_sspo.megatron.models.finite import refuse_not_finite
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.groups import groups_of_one_rank

WEIGHTS = "weights"
# How NeMo 2.7 lays out sharded state; recorded in the checkpoint, as NeMo does.
LAYOUT_METADATA = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
# NeMo's Lightning module holds the Megatron model as its attribute ``module``.
KEY_PREFIX = "module."


@contextmanager
def one_rank() -> Iterator[None]:
    """Torch and Megatron process groups of this process alone, over gloo; for conversion on the host."""
    with cpu_runtime():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            with groups_of_one_rank():
                yield
        finally:
            forget_writers()
            dist.destroy_process_group()


def sharded_weights(module: MegatronModule) -> dict:
    # A copy: from megatron-core 0.16 on it enters a process group into what it is given.
    state = module.sharded_state_dict(prefix=KEY_PREFIX, metadata=dict(LAYOUT_METADATA))
    return {name: value for name, value in state.items() if not _is_extra_state(name)}


def _is_extra_state(name: str) -> bool:
    """Transformer Engine's (FP8 scales, of experts by number) is no weight: made anew, other specs lack it."""
    return name.rstrip("0123456789").endswith("_extra_state")


def save_weights(modules: Sequence[MegatronModule], directory: Path) -> None:
    """Save the model whose chunks this rank holds (several under VPP). Every rank calls it; collective.

    Equal weights under an equal layout give equal files, byte for byte. Raises UserError when one is no number.
    """
    refuse_not_finite(_named(modules), f"{directory}: not saved")
    target = directory / WEIGHTS
    if dist.get_rank() == 0:
        target.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    state = {f"chunk_{index}": sharded_weights(module) for index, module in enumerate(modules)}
    serve_writers()
    dist_checkpointing.save(state, str(target), content_metadata=LAYOUT_METADATA)
    if dist.get_rank() == 0:
        make_index_canonical(target / ".metadata")
        if not (common := target / "common.pt").exists():  # 0.19 writes none, and without it no earlier one reads
            torch.save({"content_metadata": LAYOUT_METADATA}, common)
    dist.barrier()


def make_index_canonical(index: Path) -> None:
    """Rewrite the index so that equal weights give equal bytes, whatever wrote them and when.

    Raises RuntimeError when the writers reported other tensors than were saved.
    """
    metadata = pickle.loads(index.read_bytes())  # written by this process a moment ago
    _require_its_own_places(index, metadata)
    canonical = dataclasses.replace(
        metadata,
        storage_meta=None,  # a random id and the path of the draft
        state_dict_metadata=dict(sorted(metadata.state_dict_metadata.items())),
        storage_data=dict(sorted(metadata.storage_data.items(), key=lambda item: _place(item[0]))),
    )
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    # Without back-references: those depend on which equal strings happen to be one object.
    pickler.fast = True
    pickler.dump(canonical)
    index.write_bytes(buffer.getvalue())


def _require_its_own_places(index: Path, metadata: Metadata) -> None:
    named = {(name, offset) for name, stored in metadata.state_dict_metadata.items() for offset in _offsets(stored)}
    placed = {(place.fqn, tuple(place.offset or ())) for place in metadata.storage_data or ()}
    if wrong := sorted(named ^ placed):
        name, offset = wrong[0]
        raise RuntimeError(f"{index}: {name!r} at {offset} is {'saved' if wrong[0] in named else 'indexed'} only")


def _offsets(stored: TensorStorageMetadata | BytesStorageMetadata) -> list[tuple[int, ...]]:
    """Where the parts of a tensor begin. From megatron-core 0.19 on the common state is stored among them, whole."""
    return [()] if isinstance(stored, BytesStorageMetadata) else [tuple(chunk.offsets) for chunk in stored.chunks]


def _place(entry: MetadataIndex) -> tuple[str, tuple[int, ...], int]:
    return entry.fqn, tuple(entry.offset or ()), entry.index or 0


def load_weights(modules: Sequence[MegatronModule], directory: Path) -> None:
    """Load weights saved under any layout into this rank's chunks, in their dtype. Collective.

    Raises UserError when the checkpoint lacks a tensor of the model, holds NaN or Inf, or is of a format that cannot be
    read here.
    """
    state = {f"chunk_{index}": sharded_weights(module) for index, module in enumerate(modules)}
    source = require_tensors((place for chunk in state.values() for place in chunk.values()), directory)
    loaded = dist_checkpointing.load(state, str(source), strict=StrictHandling.ASSUME_OK_UNEXPECTED)
    for index, module in enumerate(modules):
        weights = {name.removeprefix(KEY_PREFIX): value for name, value in loaded[f"chunk_{index}"].items()}
        missing, surplus = module.load_state_dict(weights, strict=False)
        lost = [name for name in missing if not _is_extra_state(name)]
        if lost or surplus:
            raise UserError(f"{source}: does not fit the model (missing {lost[:1]}, surplus {surplus[:1]})")
    refuse_not_finite(_named(modules), str(source))


def _named(modules: Sequence[MegatronModule]) -> Iterator[tuple[str, Tensor]]:
    for index, module in enumerate(modules):
        chunk = f"chunk {index}: " if len(modules) > 1 else ""
        yield from ((f"{chunk}{name}", parameter.data) for name, parameter in module.named_parameters())


def require_tensors(places: Iterable[object], directory: Path) -> Path:
    """Where a checkpoint's tensors lie. Raises UserError where it is none, or one of `places` is not in it."""
    source = directory / WEIGHTS
    if not dist_checkpointing.check_is_distributed_checkpoint(str(source)):
        raise UserError(f"{directory}: not a checkpoint of this project (no {WEIGHTS}/metadata.json)")
    stored = _stored_tensors(source)
    wanted = {part.key for place in places for part in stored_parts(place)}
    if missing := sorted(wanted - set(stored)):
        raise UserError(
            f"{source}: tensor {missing[0]!r} is missing ({len(missing)} in all); make the checkpoint again"
        )
    return source


def stored_parts(place: object) -> list[ShardedTensor]:
    """Tensors of a checkpoint that a place stands for: gate and up of a fused matrix are stored apart."""
    if isinstance(place, ShardedTensorFactory):
        return list(nested_values(place.build()))
    return [place] if isinstance(place, ShardedTensor) else []


def _stored_tensors(source: Path) -> dict[str, ShardedTensor]:
    try:
        return dist_checkpointing.load_tensors_metadata(str(source))
    except (CheckpointingException, RuntimeError, OSError) as error:  # 0.19 looks for torch's index whatever it is
        if is_torch_dist(source):
            raise
        # Legacy zarr: megatron-core 0.15 alone still reads it, through tensorstore.
        raise UserError(
            f"{source}: stored as {_backend(source)!r}, which the megatron-core here cannot read ({error}); give the "
            "policy as a Hugging Face model, or install tensorstore and megatron-core 0.15, which read legacy zarr "
            "checkpoints"
        ) from None


def is_torch_dist(source: Path) -> bool:
    """Whether the tensors are stored as torch's distributed checkpoint, which is what is written here."""
    return _backend(source) == "torch_dist"


def _backend(source: Path) -> str:
    return maybe_load_config(str(source)).sharded_backend
