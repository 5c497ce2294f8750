"""Latent repulsion between the chosen and the rejected response's hidden state (S-SPPO sec. 3.2).

Legend: B pairs, H hidden size. The typeset form of eq. 3.2 is lost; ``euclidean`` is inferred from the text
("Euclidean", "bounded") and has the gradient of ``cosine``. Every form decreases as the two states move apart.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def unit(h_BH: Tensor) -> Tensor:
    """Normalize rows to length 1. A zero row stays zero and has a finite gradient (of 0/0 there would be none)."""
    square_B1 = h_BH.square().sum(dim=-1, keepdim=True)
    is_zero = square_B1 == 0
    norm_B1 = torch.where(is_zero, torch.ones_like(square_B1), square_B1).sqrt()
    return torch.where(is_zero, torch.zeros_like(h_BH), h_BH / norm_B1)


def cosine(u_chosen_BH: Tensor, u_rejected_BH: Tensor) -> Tensor:
    """u_w . u_l, in [-1, 1]."""
    return (u_chosen_BH * u_rejected_BH).sum(dim=-1)


def euclidean(u_chosen_BH: Tensor, u_rejected_BH: Tensor) -> Tensor:
    """-1/2 ||u_w - u_l||^2, in [-2, 0]."""
    return -0.5 * (u_chosen_BH - u_rejected_BH).square().sum(dim=-1)


def cosine_squared(u_chosen_BH: Tensor, u_rejected_BH: Tensor) -> Tensor:
    """(u_w . u_l)^2, in [0, 1]: it stops at orthogonality."""
    return cosine(u_chosen_BH, u_rejected_BH).square()


def hinge(u_chosen_BH: Tensor, u_rejected_BH: Tensor, *, margin: float) -> Tensor:
    """relu(u_w . u_l - margin): no force once the pair is far enough apart."""
    return torch.relu(cosine(u_chosen_BH, u_rejected_BH) - margin)


def kernel(u_chosen_BH: Tensor, u_rejected_BH: Tensor, *, temperature: float) -> Tensor:
    """exp(-||u_w - u_l||^2 / temperature), in (0, 1]: strongest on pairs that are close."""
    return torch.exp(-(u_chosen_BH - u_rejected_BH).square().sum(dim=-1) / temperature)


REPULSIONS: dict[str, Callable[..., Tensor]] = {
    "euclidean": euclidean,
    "cosine": cosine,
    "cosine_squared": cosine_squared,
    "hinge": hinge,
    "kernel": kernel,
}


def repulsion_weight(step: int, total_steps: int, *, weight: float, schedule: str) -> float:
    """lambda at an optimizer step (0-based): ``constant``, or a ``linear`` or ``cosine`` decay from `weight` to 0."""
    progress = min(max(step / max(total_steps, 1), 0.0), 1.0)
    if schedule == "constant":
        return weight
    if schedule == "linear":
        return weight * (1.0 - progress)
    if schedule == "cosine":
        return weight * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"unknown repulsion schedule {schedule!r}: choose constant, linear or cosine")
