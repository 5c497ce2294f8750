"""The interface of a sentence encoder for the embed stage. Legend: N texts, D embedding size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of N texts, in their order."""

    vectors_ND: NDArray[np.float32]
    """L2-normalized."""
    long_N: NDArray[np.bool_]
    """Whether a text was longer than the encoder's window."""
    unique_texts: int
    """Texts that were really encoded; equal ones are encoded once."""


class SentenceEncoder(Protocol):
    """Maps texts to unit vectors, each independently of the others."""

    def encode(self, texts: Sequence[str], on_progress: Callable[[int], None] = ...) -> Embeddings:
        """Embed `texts`; `on_progress` gets the number of finished texts."""
        ...
