"""What layout and precision require of the lengths of rows. No torch: plans ask too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nemo_sspo.config.precisions import Fp8Precision, Precision
from nemo_sspo.errors import UserError


@dataclass(frozen=True)
class RowShape:
    """What a layout requires of lengths: context parallelism cuts each sequence into 2 x CP equal chunks, and sequence
    parallelism cuts each rank's part of the row into TP equal ones."""

    sequence_multiple: int = 1
    """Length of every sequence of a packed row is a multiple of this."""
    row_multiple: int = 1
    """Length of a row is a multiple of this."""
    length: int | None = None
    """Exact length of a row, for schedules with fixed shapes; None takes the shortest that fits."""

    @classmethod
    def for_layout(
        cls,
        *,
        tensor: int,
        context: int,
        sequence_parallel: bool,
        token_multiple: int = 1,
        length: int | None = None,
    ) -> RowShape:
        """The shape that a layout needs, with the tokens of a row that each rank holds a multiple of `token_multiple`.

        Raises UserError when `length` is not such a length.
        """
        sequence_multiple = 2 * context if context > 1 else 1
        parts = context * tensor if sequence_parallel else context
        row_multiple = math.lcm(sequence_multiple, parts * token_multiple)
        if length is not None and length % row_multiple != 0:
            raise UserError(
                f"row length {length} must be a multiple of {row_multiple} "
                f"(2 x CP, CP x TP under SP, and {token_multiple} tokens of each rank)"
            )
        return cls(sequence_multiple, row_multiple, length)

    def row_length(self, tokens: int) -> int:
        if self.length is None:
            return rounded_up(tokens, self.row_multiple)
        if tokens > self.length:
            raise UserError(f"a microbatch row needs {tokens} tokens, but the row length is fixed at {self.length}")
        return self.length


def token_multiple(precision: Precision) -> int:
    """What the tokens of a rank's microbatch are a multiple of.

    FP8 products need 16, as Megatron aligns to. Blocks are of 128 tokens, and under sequence parallelism Transformer
    Engine gathers whole ones only.
    """
    if not isinstance(precision, Fp8Precision):
        return 1
    return 128 if precision.recipe == "blockwise" else 16


def rounded_up(length: int, multiple: int) -> int:
    """The next multiple at or above `length`."""
    return -(-length // multiple) * multiple
