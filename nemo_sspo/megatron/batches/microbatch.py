"""Preference pairs -> the tensors of one microbatch, padded or packed. Pure torch: no process group, no Megatron.

A row is prompt + response, and responses are ordered chosen_0, rejected_0, chosen_1, ...
    padded   B = 2P rows of S tokens, one response each, padding on the right
    packed   B = 1 row of S tokens, all responses end to end (THD), bounded by `cu_seqlens`

The input keeps a response's last token, because pooling reads the hidden state there. So there are two coordinate
systems, and every mask belongs to one of them:
    label coordinates   position s *predicts* token s + 1: the head sums log-probs over `response_index_BS`
    token coordinates   position s *is* token s: pooling reads states at `token_response_index_BS` (every token of the
                        response) or `last_token_index_BS` (its last one)
Padding stands after every real token of its sequence, so causal attention never sees it: no attention mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.row_shape import RowShape, rounded_up
from nemo_sspo.objective.pair_batch import PairBatch, PairTargets

NO_RESPONSE = -1
# Any id of the vocabulary serves: no loss is taken at padding and nothing attends to it.
_PAD = 0


@dataclass(frozen=True)
class PreferencePair:
    """One supervised pair. Token ids of the responses include the end-of-turn token.

    ref_*: log pi_t(y|x), summed over the response. target_*: calibrated win rates in [0, 1].
    """

    pair_id: str
    prompt_ids: Sequence[int]
    chosen_ids: Sequence[int]
    rejected_ids: Sequence[int]
    ref_chosen: float
    ref_rejected: float
    target_chosen: float
    target_rejected: float
    target_pair: float

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            if len(getattr(self, name)) == 0:
                raise UserError(f"pair {self.pair_id}: {name} is empty; drop the pair when the pairs are built")


@dataclass(frozen=True)
class Microbatch:
    """Tensors of one microbatch; see the module's text for the coordinates."""

    tokens_BS: Tensor  # int64
    labels_BS: Tensor  # int64; meaningless where response_index_BS is NO_RESPONSE
    position_ids_BS: Tensor  # int64, restarting at 0 with every sequence
    response_index_BS: Tensor  # int64 in [0, R) or NO_RESPONSE; label coordinates
    token_response_index_BS: Tensor  # token coordinates
    last_token_index_BS: Tensor  # token coordinates
    ref_logps_P2: Tensor  # float32, (chosen, rejected)
    targets_P3: Tensor  # float32, (chosen, rejected, pair)
    lengths_P2: Tensor  # int64: tokens of the whole responses, also under context parallelism
    weight_P: Tensor  # float32: 1 / pairs of the global batch, 0 for a filler pair
    cu_seqlens: Tensor | None = None  # int32 [sequences + 1], packed only; of the whole row also under CP
    max_seqlen: int | None = None
    part_bounds: Tensor | None = None  # int64 [3P + 1], only with shared prompts, of the whole row: `prompt_sharing.py`

    @property
    def num_responses(self) -> int:
        return 2 * self.weight_P.numel()

    def pair_batch(self, logps_P2: Tensor) -> PairBatch:
        """What a loss receives, with these log-probs of the policy."""
        targets = PairTargets(*self.targets_P3.unbind(dim=1))
        return PairBatch(logps_P2, self.ref_logps_P2, targets, self.lengths_P2, self.weight_P)

    def to(self, device: torch.device | str | int) -> Microbatch:
        """Copy to a device (asynchronously from pinned memory)."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def pairs_at_reference(pairs: Sequence[PreferencePair], weights: Sequence[float]) -> PairBatch:
    """What a loss receives when the policy equals the reference: every log-ratio is 0."""
    targets = [[pair.target_chosen, pair.target_rejected, pair.target_pair] for pair in pairs]
    ref_logps_B2 = torch.tensor([[pair.ref_chosen, pair.ref_rejected] for pair in pairs], dtype=torch.float32)
    return PairBatch(
        logps_B2=ref_logps_B2,
        ref_logps_B2=ref_logps_B2,
        targets=PairTargets(*torch.tensor(targets, dtype=torch.float32).unbind(dim=1)),
        lengths_B2=torch.tensor([[len(pair.chosen_ids), len(pair.rejected_ids)] for pair in pairs]),
        weight_B=torch.tensor(weights, dtype=torch.float32),
    )


def padded_microbatch(pairs: Sequence[PreferencePair], weights: Sequence[float], shape: RowShape) -> Microbatch:
    """One response per row; rows are padded to a common length. `weights`: see `Microbatch.weight_P`."""
    rows = [_Sequence.of(prompt, response, r) for r, (prompt, response) in enumerate(_responses(pairs))]
    length = shape.row_length(max(row.length for row in rows))
    padded = [row.padded_to(length) for row in rows]
    return _assemble({name: torch.stack([getattr(row, name) for row in padded]) for name in _COLUMNS}, pairs, weights)


def packed_microbatch(pairs: Sequence[PreferencePair], weights: Sequence[float], shape: RowShape) -> Microbatch:
    """All responses in one row. What is left of the row is a sequence of its own, so that no response attends to it."""
    sequences = [_Sequence.of(prompt, response, r) for r, (prompt, response) in enumerate(_responses(pairs))]
    padded = [row.padded_to(rounded_up(row.length, shape.sequence_multiple)) for row in sequences]
    used = sum(row.length for row in padded)
    rest = shape.row_length(used) - used
    if rest:
        padded.append(_Sequence.padding(rest))
    lengths = torch.tensor([0, *(row.length for row in padded)])
    columns = {name: torch.cat([getattr(row, name) for row in padded])[None] for name in _COLUMNS}
    microbatch = _assemble(columns, pairs, weights)
    return replace(microbatch, cu_seqlens=lengths.cumsum(0).to(torch.int32), max_seqlen=int(lengths.max()))


def shared_prompt_microbatch(pairs: Sequence[PreferencePair], weights: Sequence[float], shape: RowShape) -> Microbatch:
    """All pairs in one row, each one's prompt once; see `layers/prompt_sharing.py`. Megatron sees one sequence."""
    parts: list[_Sequence] = []
    for number, pair in enumerate(pairs):
        before_last = len(pair.prompt_ids) - 1
        parts.append(_Sequence.unscored(pair.prompt_ids[:before_last]))
        for side, response in enumerate((pair.chosen_ids, pair.rejected_ids)):
            branch = _Sequence.of(pair.prompt_ids[before_last:], response, 2 * number + side)
            parts.append(replace(branch, position_ids_BS=branch.position_ids_BS + before_last))
    bounds = torch.tensor([0, *(part.length for part in parts)]).cumsum(0)
    length = shape.row_length(int(bounds[-1]))
    parts.append(_Sequence.padding(length - int(bounds[-1])))
    columns = {name: torch.cat([getattr(part, name) for part in parts])[None] for name in _COLUMNS}
    whole = torch.tensor([0, length], dtype=torch.int32)
    return replace(_assemble(columns, pairs, weights), cu_seqlens=whole, max_seqlen=length, part_bounds=bounds)


def context_parallel_slice(microbatch: Microbatch, rank: int, size: int) -> Microbatch:
    """The part of a microbatch that one context-parallel rank holds. `cu_seqlens` stays that of the whole row."""
    if size == 1:
        return microbatch
    bounds = microbatch.cu_seqlens
    if bounds is None:
        bounds = torch.tensor([0, microbatch.tokens_BS.shape[1]])
    index = zigzag_indices(bounds, rank, size).to(microbatch.tokens_BS.device)
    return replace(microbatch, **{name: getattr(microbatch, name)[:, index] for name in _COLUMNS})


def zigzag_indices(cu_seqlens: Tensor, rank: int, size: int) -> Tensor:
    """Row positions that a context-parallel rank holds, in its own order; int64 on the CPU.

    Megatron's (and Transformer Engine's) layout: every sequence is cut into 2 x size equal chunks and a rank takes
    chunk `rank` and, mirrored, chunk 2 x size - 1 - rank, which balances causal attention. With size 1: everything.
    """
    parts = []
    for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        if (end - start) % (2 * size) != 0 and size > 1:
            raise ValueError(f"a sequence of {end - start} tokens cannot be cut into 2 x {size} equal chunks")
        chunks = torch.arange(start, end).chunk(2 * size) if size > 1 else (torch.arange(start, end),)
        parts += [chunks[rank], chunks[2 * size - 1 - rank]] if size > 1 else [chunks[0]]
    return torch.cat(parts)


@dataclass(frozen=True)
class _Sequence:
    """One prompt + response (or padding) with its masks; each tensor [length]."""

    tokens_BS: Tensor
    labels_BS: Tensor
    position_ids_BS: Tensor
    response_index_BS: Tensor
    token_response_index_BS: Tensor
    last_token_index_BS: Tensor

    @property
    def length(self) -> int:
        return self.tokens_BS.numel()

    @classmethod
    def padding(cls, length: int) -> _Sequence:
        return cls.unscored([_PAD] * length)

    @classmethod
    def unscored(cls, token_ids: Sequence[int]) -> _Sequence:
        tokens = torch.tensor(token_ids, dtype=torch.int64)
        nothing = torch.full_like(tokens, NO_RESPONSE)
        return cls(tokens, torch.full_like(tokens, _PAD), torch.arange(len(tokens)), nothing, nothing, nothing)

    @classmethod
    def of(cls, prompt: Sequence[int], response: Sequence[int], index: int) -> _Sequence:
        """`index`: number of the response within the microbatch."""
        start, end = len(prompt), len(prompt) + len(response)
        tokens = torch.tensor([*prompt, *response], dtype=torch.int64)
        labels = torch.cat([tokens[1:], torch.tensor([_PAD])])
        as_labels, as_tokens, last = (torch.full((end,), NO_RESPONSE) for _ in range(3))
        as_labels[start - 1 : end - 1] = index
        as_tokens[start:end] = index
        last[end - 1] = index
        return cls(tokens, labels, torch.arange(end), as_labels, as_tokens, last)

    def padded_to(self, length: int) -> _Sequence:
        rest = _Sequence.padding(length - self.length)
        columns = {name: torch.cat([getattr(self, name), getattr(rest, name)]) for name in _COLUMNS}
        return _Sequence(**columns | {"position_ids_BS": torch.arange(length)})


_COLUMNS = tuple(field.name for field in fields(_Sequence))


def _responses(pairs: Sequence[PreferencePair]) -> list[tuple[Sequence[int], Sequence[int]]]:
    return [(pair.prompt_ids, response) for pair in pairs for response in (pair.chosen_ids, pair.rejected_ids)]


def _assemble(columns: dict[str, Tensor], pairs: Sequence[PreferencePair], weights: Sequence[float]) -> Microbatch:
    if len(weights) != len(pairs):
        raise ValueError(f"{len(pairs)} pairs, but {len(weights)} weights")
    at_reference = pairs_at_reference(pairs, weights)
    return Microbatch(
        tokens_BS=columns["tokens_BS"],
        labels_BS=columns["labels_BS"],
        position_ids_BS=columns["position_ids_BS"],
        response_index_BS=columns["response_index_BS"],
        token_response_index_BS=columns["token_response_index_BS"],
        last_token_index_BS=columns["last_token_index_BS"],
        ref_logps_P2=at_reference.ref_logps_B2,
        targets_P3=torch.stack(at_reference.targets, dim=1),
        lengths_P2=at_reference.lengths_B2,
        weight_P=at_reference.weight_B,
    )
