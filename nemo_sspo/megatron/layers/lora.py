"""Low-rank adapters on the matrices of a model's layers, added before training and merged into published weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.layers.adapter import AdaptedLinear, Adapter, Adapters

TARGETS = (
    ("self_attention", "linear_qkv"),
    ("self_attention", "linear_proj"),
    ("mlp", "linear_fc1"),
    ("mlp", "linear_fc2"),
)


def add_adapters(model: GPTModel, adapters: Adapters, tp_group: ProcessGroup) -> None:
    """Freeze `model`, this rank's chunk, and adapt the matrices of its layers. Its output stays what it was."""
    model.requires_grad_(False)
    for parent, name, layer_number in _targets(model):
        linear = getattr(parent, name)
        adapter = Adapter(linear, adapters, tp_group, is_gated=name == "linear_fc1")
        adapter.draw(f"{adapters.seed}.{layer_number}.{name}")
        setattr(parent, name, AdaptedLinear(linear, adapter))
    if model.pre_process and model.config.recompute_granularity == "full":
        # A recomputed layer has gradients only where its input requires one, and the frozen embedding's does not.
        model.embedding.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())


@torch.no_grad()
def whole_adapters(model: GPTModel) -> dict[str, tuple[Tensor, Tensor]]:
    """A [rank, in] and B [out, rank] of each adapted matrix of this rank's chunk, by its name in a whole model.

    Collective over TP.
    """
    return {
        f"decoder.layers.{number - 1}.{block}.{name}": linear.adapter.whole()
        for layer in model.decoder.layers
        for number in (layer.layer_number,)
        for block, name in TARGETS
        if isinstance(linear := getattr(getattr(layer, block), name, None), AdaptedLinear)
    }


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
            weight.copy_(weight.float() + linear.adapter.product())
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
            parent = getattr(layer, block)
            if hasattr(parent, name):  # a mixture of experts, which is never adapted, has no such matrices
                yield parent, name, layer.layer_number
