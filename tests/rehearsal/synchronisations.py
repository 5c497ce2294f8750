"""What makes the host wait for its GPU, and how often the project may.

A GPU runs behind the host. Where the host asks for a number that is still to be computed, or copies memory that is not
page-locked in one direction or the other and waits, it falls back to the GPU's place, and the GPU idles until it has
caught up. So the waits of a step are counted, by what asked, and held to these numbers: whoever adds one changes them.
"""

from __future__ import annotations

from collections import Counter

WAITING = {
    "nonzero": "the size of the result",
    "masked_select": "the size of the result",
    "bincount": "the largest value, for the size of the result",
    "_unique2": "the size of the result",
    "unique_consecutive": "the size of the result",
    "repeat_interleave": "the sum of the repeats, where the size of the result is not given",
    "equal": "the answer",
}
"""Operators that wait wherever they meet a CUDA tensor, and what for. Reading a scalar (`item`), a list (`tolist`), or
copying a tensor to or from the host are counted by these names."""


class Synchronisations:
    """The waits of a step, inside its schedule of microbatches and around it."""

    def __init__(self) -> None:
        self.in_microbatches: Counter[str] = Counter()
        self.around: Counter[str] = Counter()
        self.is_in_microbatches = False

    def start_step(self) -> None:
        self.in_microbatches.clear()
        self.around.clear()

    def note(self, what: str) -> None:
        (self.in_microbatches if self.is_in_microbatches else self.around)[what] += 1


IN_EVERY_MICROBATCH = {"nonzero": 2, "bincount": 3, "tolist": 2}
"""What the project's own head and pooling ask: which tokens are scored and which are pooled, and how many each response
has. The recomputing head needs no list."""
IN_EVERY_STEP = {"item": 4, "copy to the GPU": 1}
"""Megatron's: whether a loss is to be checked, for each chunk of the model; a workspace of Transformer Engine."""
IN_A_LAYER = {"item": 16, "tolist": 8, "copy to the host": 8, "copy to the GPU": 8}
"""Megatron's at most, of a microbatch: where rotary embeddings of a packed row are not fused, or context parallelism
has the attention of this project find out who sees whom."""

IN_A_MIXTURE = {"masked_select": 4}
"""Megatron's, of a microbatch in a layer with experts: which tokens an expert takes, and their weights; twice where the
layer is recomputed."""


def most_waits(*, microbatches: int, layers: int, mixtures: int, chunks: int, is_plain: bool) -> dict[str, int]:
    """How often the host may wait in a step's schedule, by what for.

    `layers` (of them `mixtures` of experts) and `chunks` of this rank; `is_plain`: rotary embeddings are fused, and
    there is no context parallelism.
    """
    most = Counter({what: count * microbatches for what, count in IN_EVERY_MICROBATCH.items()})
    most.update({what: count * chunks for what, count in IN_EVERY_STEP.items()})
    most.update({what: count * microbatches * mixtures for what, count in IN_A_MIXTURE.items()})
    if not is_plain:
        most.update({what: count * microbatches * layers for what, count in IN_A_LAYER.items()})
    return dict(most)
