"""The policy and the pairs of the training benchmarks: an 8B Llama cut to the layers that fit.

Weights and tokens are random. Speed does not ask what they are, as long as they are no constants: those draw less
power, and clocks rise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.gpu import place as places
from benchmarks.gpu.place import Place
from benchmarks.packing import drawn
from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.checkpoints.weights import one_rank, save_weights
from nemo_sspo.megatron.loss.loss import PreferenceObjective
from nemo_sspo.megatron.nemo.model_config import host_config
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean

ETA = 1000.0
_STD = 0.02
# bf16 weight, fp32 gradient, fp32 master weight and Adam's two moments.
_BYTES_PER_PARAMETER = 2 + 4 + 4 + 8
# Of the GPU's free memory; the rest is the head's tile and gradient, and what the allocator cannot join.
_USABLE = 0.8


@dataclass(frozen=True)
class World:
    """Sizes of a training benchmark."""

    hidden: int = 4096
    ffn: int = 14_336
    heads: int = 32
    groups: int = 8
    vocab: int = 128_256
    layers: int = 8
    pairs_per_step: int = 64
    steps: int = 6
    longest: int = 2048
    """Tokens at which prompts and responses are cut."""
    train: dict[str, Any] = field(default_factory=lambda: {"packing": True, "pack_tokens": 8192})

    @property
    def hf_config(self) -> dict[str, Any]:
        """Llama 3's config.json."""
        return {
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "vocab_size": self.vocab,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "tie_word_embeddings": False,
        }

    def settings(self, **changes: Any) -> Train:
        """The `train` settings, and what a variant changes of them."""
        return Train(**{"global_batch_size": self.pairs_per_step, "loggers": ()} | self.train | changes)

    @classmethod
    def of(cls, place: Place, layers: int | None) -> World:
        """The 8B's shape, cut to `layers` or to what fits; or a tiny one."""
        if place.small:
            tiny = {"packing": True, "pack_tokens": 256}
            return cls(32, 48, 4, 2, 160, layers or 2, pairs_per_step=4, steps=3, longest=24, train=tiny)
        return cls(layers=layers or layers_that_fit(torch.cuda.mem_get_info()[0], cls()))


def layers_that_fit(free: int, world: World) -> int:
    """Layers that can be trained with AdamW, nothing recomputed, in `free` bytes of a GPU."""
    hidden, ffn, tokens = world.hidden, world.ffn, world.settings().pack_tokens
    attention = hidden * hidden * (2 + 2 * world.groups / world.heads)
    layer = _BYTES_PER_PARAMETER * (attention + 3 * hidden * ffn)
    # Per token: the inputs of the norms and products (15 H), and the feed-forward's gate, value and product (6 F).
    layer += tokens * (15 * hidden + 6 * ffn)
    outer = _BYTES_PER_PARAMETER * 2 * world.vocab * hidden + 4 * world.vocab * hidden
    return min(32, max(1, math.floor((_USABLE * free - outer) / layer)))


def write_policy(world: World, folder: Path) -> None:
    """A random checkpoint of this world's shape; see `write_random`."""
    write_random(world.hf_config, folder)


def write_random(hf_config: Mapping[str, Any], folder: Path) -> None:
    """A random checkpoint in `folder`/nemo, with its config in `folder`/hf, as `import_policy` leaves them.

    Made without a GPU, as that step is: in a process of its own where there is one.
    """
    (folder / "hf").mkdir(parents=True)
    (folder / "hf" / "config.json").write_text(json.dumps(dict(hf_config)))
    if not torch.cuda.is_available():
        _write_weights(folder)
        return
    command = [sys.executable, "-m", "benchmarks.gpu.world", str(folder)]
    subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True)


def _write_weights(folder: Path) -> None:
    with one_rank():
        _save_random(folder)


def _save_random(folder: Path) -> None:
    """The model is gone when this returns: it holds process groups."""
    model = host_config(folder / "hf", torch.bfloat16).configure_model(tokenizer=None)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # norms are made as ones
                parameter.normal_(0.0, _STD, generator=draw)
    save_weights([model], folder / "nemo")


def random_pairs(world: World) -> PairTable:
    """Pairs of lengths like UltraFeedback's, and log-probs like an untrained policy's."""
    draw = np.random.default_rng(0)
    rows, reference = [], []
    for number, lengths in enumerate(drawn(world.pairs_per_step * world.steps).of_pair):
        prompt, chosen, rejected = (min(length, world.longest) for length in lengths)
        ids = {
            f"{name}_token_ids": draw.integers(0, world.vocab, length)
            for name, length in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
        }
        targets = {"target_chosen": 0.8, "target_rejected": 0.3, "target_pair": 0.7}
        rest = {column.name: "" if pa.types.is_string(column.type) else 0.5 for column in PAIRS.schema}
        rows.append(rest | {"pair_id": f"{number}"} | ids | targets)
        logps = {"chosen_logp": -chosen * math.log(world.vocab), "rejected_logp": -rejected * math.log(world.vocab)}
        reference.append({"pair_id": f"{number}", "chosen_tokens": chosen, "rejected_tokens": rejected} | logps)
    return PairTable(PAIRS.of(rows), REFERENCE.of(reference))


def objective() -> PreferenceObjective:
    """S-SPPO, as it is by default."""
    return PreferenceObjective(partial(sppo, eta=ETA), euclidean, "last", separable=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of the training benchmarks."""
    made = places.parser(description)
    made.add_argument("--layers", type=int, help="layers of the model; without it, as many as fit")
    made.add_argument("--folder", type=Path, help="where weights and logs go (tens of GB); without it, a temporary one")
    return made


if __name__ == "__main__":
    _write_weights(Path(sys.argv[1]))
