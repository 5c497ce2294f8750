"""Find NaN and Inf on the device, report them with the step's metrics, and end the training.

A step only adds one flag to the transfer of its metrics. Only the search for the culprit, once something is wrong,
waits for the GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from nemo_sspo.errors import UserError

_NAMED = 8
_FOUND = re.compile("found (NaN|Inf) in local grad norm")
"""What Megatron's check of the gradients says (`check_for_nan_in_grad`)."""


class StepPairs:
    """The pairs that this rank works on in a step, and, on the device, which of them have NaN or Inf."""

    def __init__(self, pair_ids: Sequence[str] = ()) -> None:
        self._pair_ids = pair_ids
        self._step = -1
        self._rows: dict[int, None] = {}
        self._sound: list[tuple[tuple[int, ...], Tensor, Tensor]] = []

    def __deepcopy__(self, memo: object) -> StepPairs:
        """The chunks of an interleaved pipeline are copies of one model, and share it."""
        return self

    def begin(self, step: int, rows: Sequence[int]) -> None:
        """A microbatch of `step` begins, with these rows of the pairs table. Records of earlier steps are dropped."""
        if step != self._step:
            self._step, self._rows, self._sound = step, {}, []
        self._rows |= dict.fromkeys(rows)

    def add(self, rows: tuple[int, ...], sound_P: Tensor, gradient_squares: Tensor) -> None:
        """Of a microbatch whose loss this rank computed: whether each pair's values are numbers, and the tensor that
        its gradient's squared norms are added to (see `PairMetrics`)."""
        self._sound.append((rows, sound_P, gradient_squares))

    def __str__(self) -> str:
        """The pairs in question. Waits for the device."""
        # Filler pairs come after the microbatch's rows.
        verdicts = [zip(rows, sound_P.tolist(), strict=False) for rows, sound_P, _ in self._sound]
        unsound = [row for of_microbatch in verdicts for row, is_sound in of_microbatch if not is_sound]
        if unsound:
            return f"the log-probs, targets or loss of {self._ids(unsound)} are not numbers"
        behind = [row for rows, _, squares in self._sound if not squares.isfinite().all() for row in rows]
        if behind:
            return f"the gradient of a microbatch of {self._ids(behind)} is not a number"
        return f"no pair of this rank can be named as the cause; its pairs of the step: {self._ids(list(self._rows))}"

    def _ids(self, rows: Sequence[int]) -> str:
        names = [self._pair_ids[row] if row < len(self._pair_ids) else f"row {row}" for row in rows[:_NAMED]]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        return f"pair{'s' if len(rows) > 1 else ''} {', '.join(names)}{more}"


@contextmanager
def naming_the_pairs(step: int, step_pairs: StepPairs) -> Iterator[None]:
    """Around a step, counted from 1: Megatron finds NaN and Inf in gradients before it sums over ranks; the error that
    leaves this block names the step, the rank and the pairs.

    Raises FloatingPointError for those, and lets everything else pass.
    """
    try:
        yield
    except RuntimeError as error:
        if not _FOUND.search(str(error)):
            raise
        raise FloatingPointError(f"train, step {step}, rank {dist.get_rank()}: {error}; {step_pairs}") from error


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """0 where a value of any tensor is NaN or Inf, or the sum of their squares is no fp32; else 1. On their device."""
    return get_total_norm(list(tensors)).isfinite().to(torch.int64)


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first tensor that holds NaN or Inf, with their number. Waits for the device at each tensor."""
    for name, tensor in named:
        # A NaN is both the least and the greatest value; to ask `isfinite` of every one takes 30 times as long.
        if not tensor.is_floating_point() or all(end.isfinite() for end in tensor.aminmax()):
            continue
        if count := int((~tensor.isfinite()).sum()):
            return f"{name} ({count} of {tensor.numel()} values)"
    return None


def refuse_not_finite(named: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Raise UserError on every rank when a rank's tensors hold NaN or Inf; those ranks name one. Collective."""
    tensors = dict(named)
    is_sound = all_finite(tensors.values()).to(torch.cuda.current_device())
    dist.all_reduce(is_sound, op=dist.ReduceOp.MIN)
    if not is_sound:
        found = first_not_finite(tensors.items())
        raise UserError(f"rank {dist.get_rank()}: {what}: {found or 'a tensor of another rank'} is not finite")
