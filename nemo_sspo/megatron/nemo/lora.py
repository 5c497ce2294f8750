"""Low-rank adapters on the layers' matrices: NeMo's, added before training and merged into the published weights.

    y = W x + alpha / rank  B A x,    A [rank, in] random, B [out, rank] zero at the start (arXiv:2106.09685, 4.1)

The adapter (`ParallelLinearAdapter`) and the module that adds it to a matrix (`LoRALinear`) are NeMo's, with their
tensor and sequence parallelism and their checkpoint keys. These things around them are not:

    nemo.collections.llm.peft.LoRA        `transform` compares each module's class with ``transformer_engine.Linear``
                                          and so raises UnavailableError where Transformer Engine is not installed
    its callback (PEFT)                   saves adapters only, beside a NeMo checkpoint of the base that it restores
                                          itself; here the base comes from `load_weights`, a state to resume holds all
    get_adapter_attributes_from_linear    asks there whether a matrix is an instance of None, which megatron-core has
                                          in place of a grouped layer; so it is asked about Transformer Engine's only
    nemo.collections.llm.peft.LoRAMerge   multiplies this rank's shards of B and A, which is right at TP 1 only

Tensor parallelism: both kinds of matrices have one factor cut along the rank or the output, which the merge gathers.

    W column-parallel, [out / TP, in]     A [rank / TP, in],  B [out / TP, rank], rows as W's, fused parts included
    W row-parallel,    [out, in / TP]     A [rank, in / TP],  B [out / TP, rank]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from nemo.collections.llm.peft.lora import LoRALinear
from nemo.collections.llm.peft.utils import ParallelLinearAdapter, get_adapter_attributes_from_linear
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from typing_extensions import override

TARGETS = (
    ("self_attention", "linear_qkv"),
    ("self_attention", "linear_proj"),
    ("mlp", "linear_fc1"),
    ("mlp", "linear_fc2"),
)


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model."""

    rank: int
    """A multiple of the tensor-parallel size."""
    alpha: float
    """The adapters' output is scaled by alpha / rank."""
    seed: int
    """Of A. Each matrix draws its whole A from this and its own name, so every layout starts from the same ones."""


class AdaptedLinear(LoRALinear):
    """NeMo's `LoRALinear`, which gives its matrix the key ``weight`` in a state dict, loading such a dict as well."""

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = [key for key in state_dict if key.startswith(prefix) and "." not in key.removeprefix(prefix)]
        for key in own:
            state_dict[f"{prefix}to_wrap.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def add_adapters(model: GPTModel, adapters: Adapters, tp_group: ProcessGroup) -> None:
    """Freeze `model`, this rank's chunk, and adapt the matrices of its layers. Its output stays what it was."""
    model.requires_grad_(False)
    for parent, name, layer_number in _targets(model):
        linear = getattr(parent, name)
        setattr(parent, name, AdaptedLinear(linear, _adapter(linear, name, layer_number, adapters, tp_group)))
    if model.pre_process and model.config.recompute_granularity == "full":
        # A recomputed layer has gradients only where its input requires one, and the frozen embedding's does not.
        model.embedding.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())


@contextmanager
def merged_adapters(model: GPTModel) -> Iterator[None]:
    """Inside the block each adapter is added to its matrix, W + alpha / rank B A in fp32, and taken off.

    Afterwards the model is restored bit for bit: the host keeps a copy of W. Collective over TP. No-op without
    adapters.
    """
    places = [(parent, name, getattr(parent, name)) for parent, name, _ in _targets(model)]
    adapted = [place for place in places if isinstance(place[-1], AdaptedLinear)]
    before = [linear.to_wrap.weight.detach().to("cpu", copy=True) for _, _, linear in adapted]
    with torch.no_grad():
        for parent, name, linear in adapted:
            weight = linear.to_wrap.weight
            weight.copy_(weight.float() + _product(linear.adapter))
            setattr(parent, name, linear.to_wrap)
        try:
            yield
        finally:
            for (parent, name, linear), weight in zip(adapted, before, strict=True):
                linear.to_wrap.weight.copy_(weight)
                setattr(parent, name, linear)


def _targets(model: GPTModel) -> Iterator[tuple[nn.Module, str, int]]:
    """(module, attribute that holds a matrix, the layer's number in the whole model)."""
    for layer in model.decoder.layers:
        for block, name in TARGETS:
            yield getattr(layer, block), name, layer.layer_number


def _adapter(
    linear: nn.Module, name: str, layer_number: int, adapters: Adapters, tp_group: ProcessGroup
) -> ParallelLinearAdapter:
    row_parallel, inputs, outputs, no_sequence_communication = _shape(linear)
    adapter = ParallelLinearAdapter(
        inputs,
        outputs,
        adapters.rank,
        base_linear_name=name,
        activation="identity",
        column_init_method="xavier",
        row_init_method="zero",
        input_is_parallel=row_parallel,
        model_parallel_config=linear.config,
        alpha=adapters.alpha,
        disable_sequence_parallel_comm=no_sequence_communication,
    )
    identity = f"{adapters.seed}.{layer_number}.{name}".encode()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(identity).digest()[:7], "big"))
    whole = nn.init.xavier_normal_(torch.empty(adapters.rank, inputs), generator=generator)
    parts = whole.chunk(dist.get_world_size(tp_group), dim=1 if row_parallel else 0)
    with torch.no_grad():
        adapter.linear_in.weight.copy_(parts[dist.get_rank(tp_group)])
    return adapter


def _shape(linear: nn.Module) -> tuple[bool, int, int, bool]:
    """Whether its input is cut, its inputs and outputs over all ranks, and whether the adapter leaves tokens alone.

    The last: under sequence parallelism the adapter gathers or scatters them, where the matrix does not do it for both.
    """
    if isinstance(linear, ColumnParallelLinear | RowParallelLinear):
        is_row_parallel = isinstance(linear, RowParallelLinear)
        return is_row_parallel, linear.input_size, linear.output_size, not linear.config.sequence_parallel
    row_parallel, inputs, outputs, no_sequence_communication, _ = get_adapter_attributes_from_linear(linear)
    return row_parallel, inputs, outputs, no_sequence_communication


def _product(adapter: ParallelLinearAdapter) -> Tensor:
    """alpha / rank B A, this rank's part of it, in fp32."""
    a, b = adapter.linear_in.weight.float(), adapter.linear_out.weight.float()
    if adapter.input_is_parallel:
        b = gather_from_sequence_parallel_region(b)
    else:
        a = gather_from_sequence_parallel_region(a)
    return (adapter.alpha / adapter.dim) * (b @ a)
