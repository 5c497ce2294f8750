"""The slow truth: the same model and objective in plain torch, one process, one response at a time, all logits held.

It shares no code with the package: not the head, pooling, losses, microbatches or layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import PreferencePair
from tests.distributed.architectures import LLAMA, Architecture
from tests.distributed.world import (
    ETA,
    FFN,
    GROUPS,
    HEADS,
    LAYERS,
    NORM_EPS,
    REPULSION_WEIGHT,
    ROPE_BASE,
    VOCAB,
)


@dataclass(frozen=True)
class Truth:
    loss: float
    grads: dict[str, Tensor]
    logps: list[tuple[float, float]]  # of chosen and rejected, per pair
    repulsion: float  # mean over pairs
    gradient_ratio: float  # of the repulsion's to the preference loss's, with respect to the states
    effective_rank: float


def truth(
    weights: dict[str, Tensor],
    pairs: Sequence[PreferencePair],
    *,
    architecture: Architecture = LLAMA,
    pooling: str = "last",
    eta: float = ETA,
    preference_weight: float = 1.0,
    repulsion_weight: float = REPULSION_WEIGHT,
    at_reference: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Truth:
    """Mean over the pairs of SPPO + repulsion, and its gradient for every weight.

    `at_reference` replaces the pairs' reference log-probs by the model's own ones.
    """
    w = {name: value.detach().to(dtype).requires_grad_() for name, value in weights.items()}
    preference, repulsion = torch.zeros((), dtype=dtype), torch.zeros((), dtype=dtype)
    logps, states, units = [], [], []
    for pair in pairs:
        logp_w, states_w, pooled_w = _score(w, architecture, pair.prompt_ids, pair.chosen_ids, pooling)
        logp_l, states_l, pooled_l = _score(w, architecture, pair.prompt_ids, pair.rejected_ids, pooling)
        logps.append((logp_w.item(), logp_l.item()))
        states += [states_w, states_l]
        units += [pooled_w / pooled_w.norm(), pooled_l / pooled_l.norm()]
        ref_w, ref_l = logps[-1] if at_reference else (pair.ref_chosen, pair.ref_rejected)
        preference = preference + (logp_w - ref_w - eta * (pair.target_chosen - 0.5)) ** 2 / 2
        preference = preference + (logp_l - ref_l - eta * (pair.target_rejected - 0.5)) ** 2 / 2
        repulsion = repulsion - 0.5 * (units[-2] - units[-1]).pow(2).sum()
    first, second = preference_weight * preference / len(pairs), repulsion_weight * repulsion / len(pairs)
    ratio = _norm_of_gradient(second, states) / _norm_of_gradient(first, states) if preference_weight else 0.0
    (first + second).backward()
    return Truth(
        loss=(first + second).item(),
        grads={name: value.grad for name, value in w.items()},
        logps=logps,
        repulsion=repulsion.item() / len(pairs),
        gradient_ratio=ratio,
        effective_rank=_effective_rank(torch.stack(units)),
    )


def _norm_of_gradient(term: Tensor, states: list[Tensor]) -> float:
    return torch.cat(torch.autograd.grad(term, states, retain_graph=True)).norm().item()


def _effective_rank(units: Tensor) -> float:
    values = torch.linalg.svdvals(units.detach().double())
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def _score(
    w: dict[str, Tensor], a: Architecture, prompt: Sequence[int], response: Sequence[int], pooling: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed log-prob of the response given the prompt; all states after the final norm; the response's pooled one."""
    tokens = torch.tensor([*prompt, *response])
    states = _hidden(w, a, tokens)
    output = w.get("output_layer.weight", w["embedding.word_embeddings.weight"])
    logps = _capped(states @ output[:VOCAB].T, a.final_cap).log_softmax(dim=-1)
    summed = sum(logps[at - 1, tokens[at]] for at in range(len(prompt), len(tokens)))
    return summed, states, states[-1] if pooling == "last" else states[len(prompt) :].mean(dim=0)


def _hidden(w: dict[str, Tensor], a: Architecture, tokens: Tensor) -> Tensor:
    x = w["embedding.word_embeddings.weight"][tokens] * a.embedding_factor
    for layer in range(LAYERS):
        get = _layer_weights(w, layer)
        attended = _attention(_norm(x, get("input_layernorm"), a), get, a, a.window if layer % 2 == 0 else None)
        x = x + (_norm(attended, get("self_attn_bda.norm"), a) if a.sandwich_norms else attended)
        fed = (_feed_forward if a.experts is None else _mixture)(_norm(x, get("pre_mlp_layernorm"), a), get, a)
        x = x + (_norm(fed, get("mlp_bda.norm"), a) if a.sandwich_norms else fed)
    return _norm(x, w["decoder.final_layernorm.weight"], a)


def _feed_forward(x: Tensor, get: Callable[[str], Tensor], a: Architecture, of: str = "mlp") -> Tensor:
    gate, up = (x @ get(f"{of}.linear_fc1").T).split(FFN, dim=-1)
    return (_activation(gate, a) * up) @ get(f"{of}.linear_fc2").T


def _mixture(x: Tensor, get: Callable[[str], Tensor], a: Architecture) -> Tensor:
    """Token by token: the experts with the highest scores, weighted by the softmax over those alone."""
    fed = []
    for token in x:
        scores, experts = (get("mlp.router") @ token).topk(a.experts_per_token)
        parts = [_feed_forward(token, get, a, f"mlp.experts.local_experts.{expert}") for expert in experts.tolist()]
        fed.append(scores.softmax(dim=0) @ torch.stack(parts))
    return torch.stack(fed)


def _layer_weights(w: dict[str, Tensor], layer: int) -> Callable[[str], Tensor]:
    return lambda name: w[f"decoder.layers.{layer}.{name}.weight"]


def _norm(x: Tensor, weight: Tensor, a: Architecture) -> Tensor:
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + NORM_EPS).sqrt() * (a.norm_offset + weight)


def _activation(x: Tensor, a: Architecture) -> Tensor:
    if a.tanh_gelu:
        return x / 2 * (1 + ((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)).tanh())
    return x * torch.sigmoid(x)


def _capped(x: Tensor, cap: float | None) -> Tensor:
    return x if cap is None else cap * (x / cap).tanh()


def _attention(x: Tensor, get: Callable[[str], Tensor], a: Architecture, window: int | None) -> Tensor:
    """Megatron's fused weight holds, for each key-value group, its query heads, its key and its value."""
    qkv = (x @ get("self_attention.linear_qkv").T).view(len(x), GROUPS, HEADS // GROUPS + 2, a.head_size)
    visible = torch.ones(len(x), len(x)).tril().bool()
    if window is not None:
        visible &= ~torch.ones(len(x), len(x)).tril(-window).bool()
    heads = []
    for group in range(GROUPS):
        *queries, key, value = qkv[:, group].unbind(dim=1)
        for query in queries:
            scores = _capped(_rotate(query) @ _rotate(key).T / a.query_scale**0.5, a.attention_cap)
            heads.append(scores.masked_fill(~visible, float("-inf")).softmax(dim=-1) @ value)
    return torch.cat(heads, dim=-1) @ get("self_attention.linear_proj").T


def _rotate(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(len(x), dtype=x.dtype)[:, None] * frequency
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)
