"""Every table that a stage publishes: its file and its schema. Ids are content hashes, never row numbers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_sspo.errors import UserError

Rows: TypeAlias = pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A table, its columns by name, or its rows."""


@dataclass(frozen=True)
class Table:
    """A Parquet file of an artifact."""

    file: str
    schema: pa.Schema

    def of(self, rows: Rows) -> pa.Table:
        """Rows as a table of this schema."""
        if isinstance(rows, Mapping):
            return pa.table(dict(rows), schema=self.schema)
        if not isinstance(rows, pa.Table):
            if not all(isinstance(row, Mapping) for row in rows):
                raise TypeError(f"{self.file}: columns need names; pyarrow makes rows of nulls of a list of lists")
            return pa.Table.from_pylist(list(rows), schema=self.schema)
        if not rows.schema.equals(self.schema, check_metadata=False):
            raise ValueError(f"{self.file} cannot hold the columns {rows.schema}")
        return rows

    def write(self, folder: Path, rows: Rows) -> None:
        """Write the file, whole or not at all; equal content makes equal bytes."""
        temporary = folder / f".{self.file}.{os.getpid()}.tmp"
        pq.write_table(self.of(rows), temporary, compression="zstd")
        os.replace(temporary, folder / self.file)

    def writer(self, folder: Path) -> pq.ParquetWriter:
        """A writer of the file in parts, for a table that is too large to be held in memory."""
        return pq.ParquetWriter(folder / self.file, self.schema, compression="zstd")

    def open(self, folder: Path) -> pq.ParquetFile:
        """The file, for a table that is read in parts.

        Raises:
            UserError: it is missing, cannot be read, or has another schema.
        """
        path = folder / self.file
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise UserError(f"{folder}: no {self.file} in this artifact") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: not a readable Parquet file ({error})") from None
        if not file.schema_arrow.equals(self.schema, check_metadata=False):
            names = file.schema_arrow.names
            file.close()
            raise UserError(f"{path}: columns {names} with types other than this version writes; make it again")
        return file

    def read(self, folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table, or some columns of it (``responses.list.element.text``).

        Raises:
            UserError: it is missing, cannot be read, or has another schema.
        """
        with self.open(folder) as file:
            try:
                # Threads gain nothing on a shard, and each keeps memory of its own.
                return file.read(columns, use_threads=False)
            except (OSError, pa.ArrowInvalid) as error:
                raise UserError(f"{folder / self.file}: not a readable Parquet file ({error})") from None


_token_ids = pa.list_(pa.int32())

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_PROMPTS = pa.schema([("prompt_id", pa.string()), ("messages", MESSAGES), ("prompt_token_ids", _token_ids)])
"""One prompt a row; token ids have the chat template and the generation prompt applied, once and for all."""
HELD_OUT = Table("held_out.parquet", _PROMPTS)
SELECTION_PROMPTS = Table("selection.parquet", _PROMPTS)


def portion_prompts(iteration: int) -> Table:
    """The prompts that an iteration samples from."""
    return Table(f"portion_{iteration}.parquet", _PROMPTS)


RESPONSE = pa.struct(
    [
        ("response_id", pa.string()),
        ("text", pa.string()),
        ("token_ids", _token_ids),
        ("logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
    ]
)

ROLLOUTS = Table(
    "rollouts.parquet",
    pa.schema(
        [
            ("prompt_id", pa.string()),
            ("prompt", pa.string()),
            ("messages", MESSAGES),
            ("prompt_token_ids", _token_ids),
            ("responses", pa.list_(RESPONSE)),
        ]
    ),
)
"""K responses a prompt. `prompt` is the conversation as one text, `messages` the same message by message for oracles
with a chat template. Token ids hold the end-of-turn token when ``finish_reason`` is ``stop``; log-probs are the
policy's own, before temperature, one per token id, and null where the policy did not sample the response
(`rollout.source`)."""

SCORES = Table(
    "scores.parquet",
    pa.schema(
        [
            ("prompt_id", pa.string()),
            ("response_ids", pa.list_(pa.string())),
            ("logits", pa.list_(pa.list_(pa.float32()))),
            ("truncated_rows", pa.int32()),
        ]
    ),
)
"""Raw K x K oracle logits of a prompt, diagonal 0, first index shown first."""

EMBEDDING_INDEX = Table("index.parquet", pa.schema([("response_id", pa.string()), ("row", pa.int32())]))
"""Where a response's vector lies in the shard's Zarr array."""

PAIRS = Table(
    "pairs.parquet",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("prompt_id", pa.string()),
            ("prompt_token_ids", _token_ids),
            ("chosen_id", pa.string()),
            ("rejected_id", pa.string()),
            ("chosen_token_ids", _token_ids),
            ("rejected_token_ids", _token_ids),
            ("p_chosen", pa.float64()),
            ("p_rejected", pa.float64()),
            ("similarity", pa.float64()),
            ("target_chosen", pa.float64()),
            ("target_rejected", pa.float64()),
            ("target_pair", pa.float64()),
            ("margin_before", pa.float64()),
            ("margin_after", pa.float64()),
        ]
    ),
)
"""A training pair with its calibrated targets and what they came from: win rates before the gate and similarity."""

DROPPED = Table("dropped.parquet", pa.schema([("prompt_id", pa.string()), ("reason", pa.string())]))
"""Prompts without a pair, and why."""

REFERENCE = Table(
    "reference.parquet",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("chosen_logp", pa.float32()),
            ("rejected_logp", pa.float32()),
            ("chosen_tokens", pa.int32()),
            ("rejected_tokens", pa.int32()),
        ]
    ),
)
"""Summed log-probs of both responses under the reference policy, in nats."""

EVALUATION = Table(
    "evaluation.parquet",
    pa.schema([("prompt_id", pa.string()), ("win_vs_previous", pa.float64()), ("win_vs_base", pa.float64())]),
)
"""Mean oracle win probability of the new policy's responses on one held-out prompt."""

MATCHUPS = Table(
    "matchups.parquet",
    pa.schema(
        [
            ("opponent", pa.int32()),
            ("prompt_id", pa.string()),
            ("win", pa.float64()),
            ("length_difference", pa.float64()),
        ]
    ),
)
"""The same against every earlier policy (0: the base), and how many tokens longer the new policy's responses are."""

CANDIDATES = Table(
    "candidates.parquet",
    pa.schema(
        [
            ("candidate", pa.int32()),
            ("prompt_id", pa.string()),
            ("win", pa.float64()),
            ("length_difference", pa.float64()),
        ]
    ),
)
"""The same of every candidate of an iteration against the policy that it started from, on one selection prompt."""

BEST_OF_N = Table(
    "best_of_n.parquet",
    pa.schema([("prompt_id", pa.string()), ("response_id", pa.string()), ("win_vs_base", pa.float64())]),
)
"""The sample that the oracle kept of a held-out prompt, and its mean win probability against the base."""

LABELLED = Table(
    "labelled.parquet", pa.schema([("p_first", pa.float64()), ("label", pa.float64()), ("truncated", pa.bool_())])
)
"""Labelled comparisons: P(a is better) as the oracle says with both orders combined, and as the label says."""

COMPARISONS = Table(
    "comparisons.parquet",
    pa.schema(
        [
            ("prompt_id", pa.string()),
            ("first", pa.int32()),
            ("second", pa.int32()),
            ("similarity", pa.float64()),
            ("p_before", pa.float64()),
            ("margin_before", pa.float64()),
            ("margin_after", pa.float64()),
            ("is_selected_pair", pa.bool_()),
        ]
    ),
)
"""A seeded sample of response pairs i < j: positions among the prompt's responses, P_ij, margins around the run's gate,
and whether it is the prompt's training pair."""
