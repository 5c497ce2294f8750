"""The pairs of an iteration in memory: the pairs table joined with the reference table. No Megatron, no NeMo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import PreferencePair


class PairTable(Sequence[PreferencePair]):
    """Pairs by row, token ids left in Arrow until they are asked for."""

    def __init__(self, pairs: pa.Table, reference: pa.Table | None) -> None:
        """`reference` has one row per pair, in any order; None stands for log-probs that are yet to be computed."""
        self._pairs = pairs.combine_chunks()
        self.pair_ids: list[str] = pairs["pair_id"].to_pylist()
        _refuse_not_finite(pairs, ("target_chosen", "target_rejected", "target_pair"))
        if reference is not None:
            _refuse_not_finite(reference, ("chosen_logp", "rejected_logp"))
        self._reference = None if reference is None else _aligned(reference, self.pair_ids)

    @classmethod
    def read(cls, pairs_dir: Path, reference_dir: Path | None = None) -> PairTable:
        """Read the tables of a build_pairs and of a reference_logps artifact."""
        pairs = PAIRS.read(pairs_dir)
        if pairs.num_rows == 0:
            raise UserError(f"{pairs_dir / PAIRS.file}: no pairs to train on; see dropped.parquet for the reasons")
        reference = None if reference_dir is None else REFERENCE.read(reference_dir)
        return cls(pairs, reference)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def __getitem__(self, row: int) -> PreferencePair:  # type: ignore[override]
        values = {name: self._pairs[name][row].as_py() for name in _PAIR_COLUMNS}
        chosen, rejected = (0.0, 0.0) if self._reference is None else self._reference[row]
        return PreferencePair(
            pair_id=self.pair_ids[row],
            prompt_ids=values["prompt_token_ids"],
            chosen_ids=values["chosen_token_ids"],
            rejected_ids=values["rejected_token_ids"],
            ref_chosen=chosen,
            ref_rejected=rejected,
            target_chosen=values["target_chosen"],
            target_rejected=values["target_rejected"],
            target_pair=values["target_pair"],
        )

    def subset(self, rows: Sequence[int]) -> PairTable:
        """Some of the pairs, without reference log-probs."""
        return PairTable(self._pairs.take(list(rows)), None)

    def row_tokens(self) -> list[int]:
        """Tokens of each pair's longer row, prompt and response together."""
        prompt, chosen, rejected = (self._lengths(f"{name}_token_ids") for name in ("prompt", "chosen", "rejected"))
        return [p + max(c, r) for p, c, r in zip(prompt, chosen, rejected, strict=True)]

    def highest_ids(self) -> list[int]:
        """The highest token id of each pair; -1 where it has no tokens."""
        columns = (self._pairs[f"{name}_token_ids"] for name in ("prompt", "chosen", "rejected"))
        return np.max([_highest(pa.concat_arrays(column.chunks)) for column in columns], axis=0).tolist()

    def lengths(self) -> list[tuple[int, int, int]]:
        """Tokens of each pair's prompt, chosen and rejected response."""
        columns = (self._lengths(f"{name}_token_ids") for name in ("prompt", "chosen", "rejected"))
        return list(zip(*columns, strict=True))

    def packed_tokens(self, sequence_multiple: int) -> list[int]:
        """Tokens of each pair in a packed row, where every sequence is padded to a multiple of `sequence_multiple`."""
        prompt = self._lengths("prompt_token_ids")
        return [
            sum(-(-(p + response) // sequence_multiple) * sequence_multiple for response in responses)
            for p, responses in zip(prompt, self.response_tokens(), strict=True)
        ]

    def shared_prompt_tokens(self) -> list[int]:
        """Tokens of each pair in a packed row that holds its prompt once, the prompt's last token twice."""
        prompt = self._lengths("prompt_token_ids")
        responses = self.response_tokens()
        return [p + 1 + chosen + rejected for p, (chosen, rejected) in zip(prompt, responses, strict=True)]

    def response_tokens(self) -> list[tuple[int, int]]:
        """Tokens of each pair's chosen and rejected response."""
        return list(zip(self._lengths("chosen_token_ids"), self._lengths("rejected_token_ids"), strict=True))

    def _lengths(self, column: str) -> list[int]:
        return pc.list_value_length(self._pairs[column]).to_pylist()


_PAIR_COLUMNS = (
    "prompt_token_ids",
    "chosen_token_ids",
    "rejected_token_ids",
    "target_chosen",
    "target_rejected",
    "target_pair",
)


def _highest(lists: pa.ListArray) -> NDArray[np.int64]:
    """The largest number of each list, [N]; -1 of an empty one."""
    values, lengths = lists.flatten().to_numpy(), lists.value_lengths().to_numpy()
    highest = np.full(len(lists), -1, dtype=np.int64)
    if len(filled := np.flatnonzero(lengths)):
        starts = np.cumsum(lengths) - lengths
        highest[filled] = np.maximum.reduceat(values, starts[filled])
    return highest


def _refuse_not_finite(table: pa.Table, columns: Sequence[str]) -> None:
    """Raise a UserError that names the first pair with a value in one of the columns that is NaN, Inf or null."""
    for name in columns:
        broken = pc.invert(pc.fill_null(pc.is_finite(table[name]), False))
        if rows := pc.sum(broken).as_py():
            pair = table["pair_id"].filter(broken)[0]
            raise UserError(f"pair {pair}: {name} is not finite ({rows} pairs in all); have them made anew")


def _aligned(reference: pa.Table, pair_ids: list[str]) -> list[tuple[float, float]]:
    ids, chosen, rejected = (reference[name].to_pylist() for name in ("pair_id", "chosen_logp", "rejected_logp"))
    by_id = {pair: logps for pair, *logps in zip(ids, chosen, rejected, strict=True)}
    missing = [pair for pair in pair_ids if pair not in by_id]
    if missing or len(by_id) != len(pair_ids):
        raise UserError(
            f"the reference log-probs are of other pairs ({len(missing)} pairs have none, first {missing[:1]}); "
            "`nemo-sspo redo <run> --from <iter_N.reference_logps>` makes them anew"
        )
    return [tuple(by_id[pair]) for pair in pair_ids]
