"""Llama 3.1 70B over TP 8 x PP 4: all names and shapes on the meta device, and values of a model as narrow as a test
can be, with the 70B's heads, groups and order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories, is_main_replica
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from nemo_sspo.artifacts.sources.weight_headers import TensorHeader
from nemo_sspo.config.precisions import Bf16Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.checkpoints import convert
from nemo_sspo.megatron.checkpoints.streamed import places_of
from nemo_sspo.megatron.checkpoints.weights import KEY_PREFIX, WEIGHTS, one_rank, sharded_weights
from nemo_sspo.megatron.core.policy import host_policy, policy_chunks
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.host_memory import MOST_PROCESSES, conversion_bytes
from nemo_sspo.megatron.models.shape import Shape
from nemo_sspo.megatron.models.weight_map import conversions
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.groups import Groups
from tests.published_models import PUBLISHED

SEVENTY = PUBLISHED["llama3.1-70b"]
NARROW = SEVENTY | {"hidden_size": 16, "intermediate_size": 448, "vocab_size": 2004, "num_hidden_layers": 8}
"""64 heads of 128 channels in 8 groups; two layers a stage; a vocabulary that is padded to 2048."""
TP, PP = 8, 4


def written(folder: Path, config: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config) | {"torch_dtype": "bfloat16", "head_dim": 128}))
    return folder


def headers(folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the names and shapes of Hugging Face tensors."""
    described = {name: TensorHeader("BF16", tuple(tensor.shape)) for name, tensor in tensors.items()}
    return list(Shape.of(read_hf_config(folder)).problems(described, "tensors"))


@contextmanager
def rank_of(number: int) -> Iterator[None]:
    """Of TP 8 x PP 4, in groups that send nothing, with every tensor on the meta device."""
    with cpu_runtime(), torch.device("meta"):
        dist.init_process_group("fake", store=FakeStore(), rank=number, world_size=TP * PP)
        try:
            parallel_state.initialize_model_parallel(TP, PP, create_gloo_process_groups=False)
            with mock.patch.object(torch.cuda, "current_device", return_value=torch.device("meta")):
                yield
        finally:
            parallel_state.destroy_model_parallel()
            dist.destroy_process_group()


def parts_of_rank(folder: Path, number: int) -> list[ShardedTensor]:
    """What a rank that trains asks a checkpoint for, and is the one to save."""
    with rank_of(number):
        layout, train = Parallel(tensor=TP, pipeline=PP), Train()
        (chunk,) = policy_chunks(folder, layout, Bf16Precision(), train, Groups.of_megatron())
        state = sharded_weights(chunk)
        apply_factories(state)
        return [part for part in nested_values(state) if is_main_replica(part.replica_id)]


def sizes(part: ShardedTensor) -> tuple[int, ...]:
    return (1,) * part.prepend_axis_num + tuple(part.local_shape)


def test_every_name_and_shape_goes_there_and_back(tmp_path: Path) -> None:
    folder = written(tmp_path, SEVENTY)
    places = places_of(lambda: host_policy(folder, torch.bfloat16))
    converted = list(conversions(Shape.of(read_hf_config(folder))))
    assert sorted(places) == sorted(conversion.ours for conversion in converted)
    tensors: dict[str, Tensor] = {}
    for conversion in converted:
        place = places[conversion.ours].data
        parts = dict(zip(conversion.theirs, conversion.split(place), strict=True))
        joined = conversion.join(*parts.values())
        assert (joined.shape, joined.dtype, joined.device.type) == (place.shape, torch.bfloat16, "meta")
        assert not tensors.keys() & parts.keys()
        tensors |= parts
    assert headers(folder, tensors) == []
    assert len(tensors) == 723
    assert sum(tensor.numel() for tensor in tensors.values()) == 70_553_706_496


def test_the_ranks_of_a_training_hold_every_tensor_once(tmp_path: Path) -> None:
    """With as many layers as a stage of each kind has: two in place of twenty."""
    folder = written(tmp_path, SEVENTY | {"num_hidden_layers": 8})
    stored: dict[str, tuple[int, ...]] = {}
    whole = {name: place for name, place in places_of(lambda: host_policy(folder, torch.bfloat16)).items()}
    apply_factories(whole)
    for part in nested_values(whole):
        stored[part.key] = tuple(part.global_shape)
    held: dict[str, dict[tuple[int, ...], int]] = {}
    for number in range(TP * PP):
        for part in parts_of_rank(folder, number):
            assert tuple(part.global_shape) == stored[part.key]
            assert part.dtype == torch.bfloat16
            offsets = held.setdefault(part.key, {})
            assert tuple(part.global_offset) not in offsets
            offsets[tuple(part.global_offset)] = prod(sizes(part))
    assert {key: sum(parts.values()) for key, parts in held.items()} == {k: prod(shape) for k, shape in stored.items()}


def test_each_rank_has_the_values_of_its_heads_channels_and_rows(tmp_path: Path) -> None:
    folder = written(tmp_path / "policy", NARROW)
    shape = Shape.of(read_hf_config(folder))
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    places = places_of(lambda: host_policy(folder, torch.bfloat16))
    for conversion in conversions(shape):
        for name, part in zip(conversion.theirs, conversion.split(places[conversion.ours].data), strict=True):
            tensors[name] = torch.randn(part.shape, generator=generator).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    small = partial(convert.import_policy, build=host_policy, file_bytes=2**20)
    small(folder, tmp_path / "nemo", tmp_path / "hf", torch.bfloat16)
    convert.export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", torch.bfloat16, host_policy)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    with one_rank():
        stored = dist_checkpointing.load_plain_tensors(str(tmp_path / "nemo" / WEIGHTS))
    for number in range(TP * PP):
        for part in parts_of_rank(folder, number):
            box = tuple(slice(at, at + size) for at, size in zip(part.global_offset, sizes(part), strict=True))
            found, expected = stored[part.key][box], expected_part(part, number % TP, tensors)
            assert torch.equal(found.reshape(expected.shape), expected), (number, part.key)


def expected_part(part: ShardedTensor, rank: int, tensors: Mapping[str, Tensor]) -> Tensor:
    """Of a tensor-parallel rank, cut from the Hugging Face tensors by what each of their rows and columns is."""
    kind = part.key.removeprefix(KEY_PREFIX)
    if kind in (names := {"embedding.word_embeddings.weight": "model.embed_tokens", "output_layer.weight": "lm_head"}):
        rows = torch.cat([tensors[f"{names[kind]}.weight"], torch.zeros(44, 16, dtype=torch.bfloat16)])
        return rows[256 * rank : 256 * (rank + 1)]
    if kind == "decoder.final_layernorm.weight":
        return tensors["model.norm.weight"]
    layer = f"model.layers.{part.global_offset[0]}"

    def of(name: str) -> Tensor:
        return tensors[f"{layer}.{name}.weight"]

    match kind.removeprefix("decoder.layers."):
        case "self_attention.linear_qkv.weight":  # group `rank`: its 8 query heads, its key head, its value head
            heads = of("self_attn.q_proj")[1024 * rank : 1024 * (rank + 1)]
            kept = slice(128 * rank, 128 * (rank + 1))
            return torch.cat([heads, of("self_attn.k_proj")[kept], of("self_attn.v_proj")[kept]])
        case "self_attention.linear_proj.weight":
            return of("self_attn.o_proj")[:, 1024 * rank : 1024 * (rank + 1)]
        case "mlp.linear_fc1.weight":  # stored apart: gate before up
            name = "mlp.gate_proj" if part.global_offset[1] < 448 else "mlp.up_proj"
            return of(name)[56 * rank : 56 * (rank + 1)]
        case "mlp.linear_fc2.weight":
            return of("mlp.down_proj")[:, 56 * rank : 56 * (rank + 1)]
        case "self_attention.linear_qkv.layer_norm_weight" | "input_layernorm.weight":
            return of("input_layernorm")
        case "mlp.linear_fc1.layer_norm_weight" | "pre_mlp_layernorm.weight":
            return of("post_attention_layernorm")
    raise KeyError(part.key)


def test_the_conversion_is_planned_to_take_a_small_part_of_the_policy(tmp_path: Path) -> None:
    """Four times the two vocabularies and of six fused feed-forward matrices, in bf16."""
    vocabulary, feed_forward = 128256 * 8192, 2 * 28672 * 8192
    planned = conversion_bytes(Shape.of(read_hf_config(written(tmp_path, SEVENTY))), value_bytes=2)
    assert MOST_PROCESSES == 8
    assert planned == 4 * 2 * (2 * vocabulary + 6 * feed_forward) < 0.28 * 2 * 70_553_706_496
