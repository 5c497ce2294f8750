"""One step of the parity tests' tiny model on this rank's device, through the package's own forward pass and loss.

The layers are those that training would take here: Transformer Engine's on a GPU that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.module import Float16Module
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    packed_microbatch,
    padded_microbatch,
    shared_prompt_microbatch,
)
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.layers.gemma2 import final_softcap, finish_gemma2
from nemo_sspo.megatron.layers.spec import layer_spec
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, output_weight, unwrap
from nemo_sspo.megatron.loss.loss import HeadLayout, PreferenceObjective, microbatch_logps, preference_loss
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean
from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.tiny_model import config_of

# Of bf16 from the truth, as `distance` gives them. bf16 keeps 8 bits, through 4 layers forward and backward: Megatron's
# local layers measure 2e-3 and 2e-2.
LOSS_BOUND, GRADIENT_BOUND = 1e-2, 5e-2

# Numbers of tokens that FP8 products take.
_SHAPE = RowShape.for_layout(tensor=1, context=1, sequence_parallel=False, token_multiple=16)
# Transformer Engine keeps the norm before a matrix inside it.
_FUSED_NORMS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}


@dataclass(frozen=True)
class Measured:
    """Loss of the global batch and the gradient of every parameter, in double precision on the host."""

    loss: float
    grads: dict[str, Tensor]


def bf16_weights(*, tied: bool, architecture: Architecture = LLAMA) -> dict[str, Tensor]:
    """The parity tests' weights as bf16 holds them, in fp32: what a bf16 model and the truth can both start from."""
    weights = world.weights(tied=tied, architecture=architecture)
    return {name: weight.bfloat16().float() for name, weight in weights.items()}


def build(
    *, tied: bool = False, architecture: Architecture = LLAMA, shares_prompts: bool = False, **fp8: Any
) -> Float16Module:
    """The tiny model in bf16, wrapped as NeMo wraps it; `fp8`: Megatron's fields for its layers' products."""
    config = config_of(
        architecture,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        bf16=True,
        params_dtype=torch.bfloat16,
        pipeline_dtype=torch.bfloat16,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        **fp8,
    )
    model = GPTModel(
        config,
        layer_spec(config, shares_prompts=shares_prompts),
        world.PADDED_VOCAB,
        world.PADDED_ROW,
        share_embeddings_and_output_weights=tied,
        position_embedding_type="rope",
        rotary_base=int(world.ROPE_BASE),
    )
    if architecture is GEMMA2:
        finish_gemma2(model)
    weights = bf16_weights(tied=tied, architecture=architecture)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(weights[_plain(name)])
    return Float16Module(config, model.to(torch.cuda.current_device()))


def measure(
    model: Float16Module,
    pairs: Sequence[PreferencePair],
    *,
    micro_batch_size: int,
    packed: bool = False,
    shared: bool = False,
    one_pass: bool = False,
) -> Measured:
    """Forward and backward over the global batch `pairs`, cut into microbatches; `shared`: packed, each prompt once."""
    make = shared_prompt_microbatch if shared else packed_microbatch if packed else padded_microbatch
    model.zero_grad()
    loss = 0.0
    for start in range(0, len(pairs), micro_batch_size):
        part = pairs[start : start + micro_batch_size]
        loss += _backward(model, make(part, [1 / len(pairs)] * len(part), _SHAPE), one_pass)
    grads = {_plain(name): p.grad.double().cpu() for name, p in model.module.named_parameters() if p.grad is not None}
    return Measured(loss, grads)


def log_probs(model: Float16Module, pairs: Sequence[PreferencePair]) -> Tensor:
    """Summed log-probs of the pairs' responses, [P, 2] fp32, computed in one microbatch."""
    microbatch = padded_microbatch(pairs, [1 / len(pairs)] * len(pairs), _SHAPE).to(torch.cuda.current_device())
    hidden_SBH = forward_to_hidden_states(model, microbatch)
    return microbatch_logps(hidden_SBH, output_weight(model), microbatch, _head(model, one_pass=False))


def _head(model: Float16Module, *, one_pass: bool) -> HeadLayout:
    softcap = final_softcap(unwrap(model).config)
    tp_group = parallel_state.get_tensor_model_parallel_group()
    return HeadLayout(world.VOCAB, 5, False, tp_group, None, one_pass, softcap)


def _backward(model: Float16Module, microbatch: Microbatch, one_pass: bool) -> float:
    microbatch = microbatch.to(torch.cuda.current_device())
    hidden_SBH = forward_to_hidden_states(model, microbatch)
    loss, _ = preference_loss(
        hidden_SBH,
        output_weight(model),
        microbatch,
        PreferenceObjective(partial(sppo, eta=world.ETA), euclidean, "last"),
        _head(model, one_pass=one_pass),
        repulsion_weight=world.REPULSION_WEIGHT,
    )
    loss.backward()
    return loss.item()


def _plain(name: str) -> str:
    for fused, plain in _FUSED_NORMS.items():
        name = name.replace(fused, plain)
    return name


def distance(found: Measured, loss: float, grads: dict[str, Tensor]) -> tuple[float, float]:
    """Relative differences of the loss, and of all gradients as one vector (the norm of the difference)."""
    assert found.grads.keys() == grads.keys()
    squares = [(found.grads[name] - grad.double()).square().sum() for name, grad in grads.items()]
    norms = [grad.double().square().sum() for grad in grads.values()]
    return abs(found.loss / loss - 1), float((sum(squares) / sum(norms)) ** 0.5)
