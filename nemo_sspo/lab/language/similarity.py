"""What the run's own encoder says of the world's sentences. Legend: N prompts, K responses, D embedding size."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.registry import load_encoder
from nemo_sspo.objective.similarity import cosines

Array = NDArray[np.float64]


class Similarities:
    """Encodes each text once, whatever run it comes from."""

    def __init__(self, settings: SentenceEncoder) -> None:
        self._encoder = load_encoder(settings)
        self._known: dict[str, NDArray[np.float32]] = {}

    def of(self, responses: Sequence[Sequence[str]]) -> Array:
        """S_ij = max(0, cosine) of each prompt's responses, [N, K, K]."""
        new = sorted({text for row in responses for text in row} - self._known.keys())
        if new:
            self._known |= zip(new, self._encoder.encode(new).vectors_ND, strict=True)
        vectors_NKD = np.stack([[self._known[text] for text in row] for row in responses])
        return cosines(vectors_NKD).clip(min=0.0)
