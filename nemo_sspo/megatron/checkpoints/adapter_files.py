"""LoRA's adapters on disk, beside the weights that they are merged into, and as PEFT reads them.

A checkpoint's `adapters.safetensors` is the whole way from the run's base policy: of each adapted matrix, in Megatron's
rows, A [r, in] and B [out, r] with base + factor B A = the merged matrix before it is rounded. An iteration's adapters
are appended along r to those before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.shape import Shape
from nemo_sspo.megatron.models.weight_map import conversions

ADAPTERS, PARTS = "adapters.safetensors", "adapter_parts"
_A, _B = ".A", ".B"


def save_part(adapters: Mapping[str, tuple[Tensor, Tensor]], directory: Path) -> None:
    """Write whole A and B of the matrices that one pipeline rank holds; replicas write the same file."""
    folder = directory / PARTS
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in adapters.items():
        tensors |= {f"{name}{_A}": a.cpu().contiguous(), f"{name}{_B}": b.cpu().contiguous()}
    draft = folder / f".{uuid4().hex}"
    save_file(tensors, draft)
    os.replace(draft, folder / f"{min(adapters)}.safetensors")


def join_parts(directory: Path, before: Path, *, from_base: bool) -> None:
    """Make one file of a checkpoint's parts and the adapters of the one that it was trained from.

    Where that one has none and is not the base (`from_base`), the way from the base is not known, and no file is made.
    """
    parts = sorted((directory / PARTS).glob("*.safetensors"))
    tensors = {name: tensor for part in parts for name, tensor in load_file(part).items()}
    shutil.rmtree(directory / PARTS)
    earlier = load_file(before / ADAPTERS) if (before / ADAPTERS).is_file() else {}
    if not earlier and not from_base:
        return
    for name, tensor in earlier.items():
        tensors[name] = torch.cat([tensor, tensors[name]], dim=0 if name.endswith(_A) else 1)
    save_file(tensors, directory / ADAPTERS)


def write_peft(directory: Path, config_dir: Path, target: Path, *, base: str, factor: float) -> None:
    """Write a checkpoint's adapters as a directory that PEFT loads.

    Args:
        config_dir: the policy's Hugging Face files.
        base: the policy that the adapter belongs to.
        factor: alpha / rank of each iteration.

    Raises:
        UserError: the checkpoint has none.
    """
    if not (directory / ADAPTERS).is_file():
        raise UserError(
            f"{directory}: no {ADAPTERS} for train.export_adapter: an earlier release made it, or what it began from; "
            "`nemo-sspo redo <run> --from iter_1.train` makes them anew, or leave the setting out"
        )
    adapters, shape = load_file(directory / ADAPTERS), Shape.of(read_hf_config(config_dir))
    tensors = {}
    for name, a, b in _of_hugging_face(adapters, shape):
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.clone()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    rank = next(tensor.shape[0] for name, tensor in adapters.items() if name.endswith(_A))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": factor * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "use_rslora": False,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    target.mkdir(parents=True)
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _of_hugging_face(adapters: Mapping[str, Tensor], shape: Shape) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(module of the Hugging Face model, A, B); parts of a fused matrix share its A."""
    converted = {conversion.ours: conversion for conversion in conversions(shape)}
    for name in sorted(name.removesuffix(_A) for name in adapters if name.endswith(_A)):
        conversion, a = converted[f"{name}.weight"], adapters[f"{name}{_A}"]
        for theirs, part in zip(conversion.theirs, conversion.split(adapters[f"{name}{_B}"]), strict=True):
            yield theirs.removesuffix(".weight"), a, part
