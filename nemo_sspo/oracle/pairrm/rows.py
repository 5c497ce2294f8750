"""PairRM's input rows: segments, its truncation rule, and batches of little padding.

Legend: R rows, S padded length. A row is source + first + second, each encoded on its own as [CLS] <marker> text [SEP].
The source is cut to `source_max`; room it leaves is shared by the two responses: each is cut to
candidate_max + (source_max - len) // 2. llm-blender computes that room from the longest source of a batch, so its
results depend on the batch when something is cut; the rule here is that of its batches of one: rows do not depend on
their neighbours.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.oracle.pairrm.checkpoint import CANDIDATE_MARKER, MARKERS, SOURCE_MARKER
from nemo_sspo.oracle.pairrm.tokens import refuse_unframed
from nemo_sspo.oracle.protocol import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenIds = NDArray[np.int32]
Batch = NDArray[np.int64]

_ENVELOPE = 2  # [CLS] and [SEP]
TEXTS_AT_ONCE = 64
"""A tokenizer's own account of a token (its text, offsets, masks) is a hundred times the four bytes that are kept."""


@dataclass(frozen=True, slots=True)
class MarkerIds:
    """Token ids of the markers whose hidden states are compared."""

    source: int
    first: int
    second: int
    candidate: int
    """Stands in for first and second while a response is encoded, once for both places."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row as its three cut segments, each led by its marker; segments are shared between rows, never copied."""

    source: TokenIds
    first: TokenIds
    second: TokenIds
    truncated: bool

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.source) + len(self.first) + len(self.second) + 3 * _ENVELOPE

    @property
    def markers(self) -> tuple[int, int, int]:
        """Where the three markers stand."""
        first = 1 + len(self.source) + _ENVELOPE
        return 1, first, first + len(self.first) + _ENVELOPE


class RowEncoder:
    """Turns texts into rows. Each distinct text is tokenized once per call of `encode`."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", ids: MarkerIds, *, source_max: int, candidate_max: int
    ) -> None:
        """Raises a UserError when the tokenizer does not put [CLS] and [SEP] around a text and keep markers whole."""
        self._tokenizer, self._ids = tokenizer, ids
        self._source_max, self._candidate_max = source_max, candidate_max
        self._cls, self._sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        # Text that spells a marker or the separator would be read as one, and a policy could learn to write it.
        self._forbidden = re.compile("|".join(map(re.escape, (tokenizer.sep_token or "[SEP]", *MARKERS))))
        refuse_unframed(tokenizer(SOURCE_MARKER)["input_ids"], self._cls, ids.source, self._sep)

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Encode rows in order."""
        sources = self._tokenize(SOURCE_MARKER, {row.prompt for row in rows})
        responses = self._tokenize(CANDIDATE_MARKER, {text for row in rows for text in (row.first, row.second)})
        for row in rows:
            yield self._cut(sources[row.prompt], responses[row.first], responses[row.second])

    def batch(self, rows: Sequence[EncodedRow], pad: int) -> tuple[Batch, Batch, Batch]:
        """Token ids [R, S], attention mask [R, S] and marker positions [R, 3] of rows."""
        shape = len(rows), max(row.length for row in rows)
        ids_RS, mask_RS = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            start = 0
            for segment, marker in (
                (row.source, self._ids.source),
                (row.first, self._ids.first),
                (row.second, self._ids.second),
            ):
                stop = start + 1 + len(segment)
                ids_RS[index, start] = self._cls
                ids_RS[index, start + 1 : stop] = segment
                ids_RS[index, start + 1] = marker  # a response is encoded behind <|candidate|>, whatever its place
                ids_RS[index, stop] = self._sep
                start = stop + 1
            mask_RS[index, :start] = 1
        return ids_RS, mask_RS, np.array([row.markers for row in rows], dtype=np.int64)

    def _tokenize(self, marker: str, texts: set[str]) -> dict[str, TokenIds]:
        """Marker and text as token ids, uncut and without [CLS] and [SEP]."""
        ordered = sorted(texts)
        tokenized: dict[str, TokenIds] = {}
        for start in range(0, len(ordered), TEXTS_AT_ONCE):
            part = ordered[start : start + TEXTS_AT_ONCE]
            cleaned = [marker + self._forbidden.sub(" ", text) for text in part]
            encoded = self._tokenizer(
                cleaned,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
            tokenized |= {text: np.array(ids, dtype=np.int32) for text, ids in zip(part, encoded, strict=True)}
        return tokenized

    def _cut(self, source: TokenIds, first: TokenIds, second: TokenIds) -> EncodedRow:
        kept = source[: self._source_max - _ENVELOPE]
        room = self._candidate_max + (self._source_max - len(kept) - _ENVELOPE) // 2 - _ENVELOPE
        truncated = len(kept) < len(source) or max(len(first), len(second)) > room
        return EncodedRow(kept, first[:room], second[:room], truncated)
