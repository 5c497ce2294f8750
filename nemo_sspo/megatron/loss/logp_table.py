"""The log-probs of all pairs on every rank, put together from those that each rank has computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.loss.step import RowLogps
from nemo_sspo.megatron.runtime.groups import Groups


class LogpTable:
    """Each rank adds what it has computed; then all gather the whole."""

    def __init__(self, pair_ids: Sequence[str]) -> None:
        self._pair_ids = pair_ids
        self._logps_P2 = torch.zeros(len(pair_ids), 2)
        self._done_P = torch.zeros(len(pair_ids), dtype=torch.int64)

    def add(self, microbatches: Iterable[RowLogps], groups: Groups) -> None:
        """Add microbatches of the last pipeline stage. All ranks of TP x CP have equal values: one of them counts."""
        if dist.get_rank(groups.tp) + dist.get_rank(groups.cp) > 0:
            return
        for rows, logps_P2 in microbatches:
            self._logps_P2[list(rows)] = logps_P2
            self._done_P[list(rows)] += 1

    def gather(self) -> Tensor:
        """[pairs, 2] (chosen, rejected) fp32, on every rank. Collective over all ranks.

        Raises:
            RuntimeError: a pair was not computed exactly once.
            FloatingPointError: a log-prob is NaN or Inf; a pair is named.
        """
        device = torch.cuda.current_device()
        logps_P2, done_P = self._logps_P2.to(device), self._done_P.to(device)
        dist.all_reduce(logps_P2)
        dist.all_reduce(done_P)
        if not bool((done_P == 1).all()):
            raise RuntimeError(f"{int((done_P != 1).sum())} pairs were not computed exactly once")
        logps_P2 = logps_P2.cpu()
        if broken := (~logps_P2.isfinite().all(dim=1)).nonzero().flatten().tolist():
            raise FloatingPointError(
                f"reference_logps, rank {dist.get_rank()}: the log-probs of pair {self._pair_ids[broken[0]]} "
                f"({len(broken)} in all) are not finite"
            )
        return logps_P2
