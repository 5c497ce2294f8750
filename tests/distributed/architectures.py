"""In what the parity tests' tiny models differ: a Llama, a Gemma 2 all of whose features take effect, a mixture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """Numbers and switches of a model, for `truth.py` and `tiny_model.py` to build each its own way."""

    name: str
    head_size: int
    query_scale: float
    """Scores are divided by its root."""
    embedding_factor: float = 1.0
    norm_offset: float = 0.0
    """Norms multiply with this + weight."""
    sandwich_norms: bool = False
    tanh_gelu: bool = False
    """In place of SiLU."""
    window: int | None = None
    """Keys that a query of the first, third, ... layer sees, itself included."""
    attention_cap: float | None = None
    final_cap: float | None = None
    experts: int | None = None
    """In the place of each layer's feed-forward, each as large as it."""
    experts_per_token: int = 2


LLAMA = Architecture("llama", head_size=8, query_scale=8)
GEMMA2 = Architecture(
    "gemma2",
    head_size=12,  # 4 x 12 is not the hidden size
    query_scale=5,
    embedding_factor=32**0.5,
    norm_offset=1.0,
    sandwich_norms=True,
    tanh_gelu=True,
    window=4,  # most responses are longer
    attention_cap=1.5,  # as large as the logits are
    final_cap=1.0,
)
MIXTURE = Architecture("mixture of experts", head_size=8, query_scale=8, experts=4)
