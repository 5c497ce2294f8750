"""One shard of an iteration: its prompts and responses, with scores, vectors and pairs joined to them by content ids.

Artifacts that do not belong together are refused by name. Legend: N prompts, K responses, M vectors, D embedding size.
Columns stay Arrow arrays: nothing here loops over responses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.artifacts.tables import EMBEDDING_INDEX, ROLLOUTS, SCORES
from nemo_sspo.artifacts.vectors import open_vectors
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    import zarr

_RESPONSE = "responses.list.element."


@dataclass(frozen=True)
class Shard:
    """The prompts of a rollout with their responses."""

    rollout: Path
    """Folder of the rollout."""
    columns: pa.Table
    """Columns of the prompts, [N]."""
    responses: pa.StructArray
    """[N * K], prompt by prompt."""
    whole: bool
    """Whether these are all prompts of the rollout."""

    @property
    def prompt_ids(self) -> pa.Array:
        """[N]"""
        return self.column("prompt_id")

    @property
    def prompts(self) -> int:
        """N."""
        return self.columns.num_rows

    @property
    def k(self) -> int:
        """Responses per prompt; 0 without prompts."""
        return len(self.responses) // max(1, self.prompts)

    def column(self, name: str) -> pa.Array:
        """A column of the prompts, [N]."""
        return _array(self.columns, name)

    def listed(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each prompt with its responses, as Python objects."""
        responses, k = self.responses.to_pylist(), self.k
        for place, prompt in enumerate(self.columns.to_pylist()):
            yield prompt, responses[place * k : (place + 1) * k]


@dataclass(frozen=True)
class ShardVectors:
    """The embeddings of a shard's responses, read by blocks of prompts: they stay on disk."""

    stored: "zarr.Array"
    """[M, D]: unit vectors of the shard's distinct responses, up to the rounding of their type."""
    rows_NK: NDArray[np.int64]

    def of(self, prompts: slice) -> NDArray[np.floating]:
        """Read the vectors of some prompts' responses, [prompts, K, D]."""
        rows_BK = self.rows_NK[prompts]
        first = int(rows_BK.min())
        # They were stored in the order of the responses, so those of neighbours lie together.
        return np.asarray(self.stored[first : int(rows_BK.max()) + 1])[rows_BK - first]


@dataclass(frozen=True)
class ShardPairs:
    """The training pairs of a shard's prompts."""

    rows: list[dict[str, Any] | None]
    """Of the pairs table, [N]; None where a prompt has no pair."""
    places_N2: NDArray[np.int64]
    """Where the chosen and the rejected response are among the K; -1 without a pair."""


def read_shard(
    rollout: Path, columns: Sequence[str], response_fields: Sequence[str], wanted: pa.Array | None = None
) -> Shard:
    """Read a rollout's responses to its prompts, or to those prompts whose ids are `wanted`.

    Args:
        rollout: folder of the artifact.
        columns: of the prompts, ``prompt_id`` among them. What is not asked for is not read: log-probs can be half of
            a shard.
        response_fields: of the responses, ``response_id`` among them.

    Raises:
        UserError: the table cannot be read, a prompt is repeated, or K varies; the prompt is named.
    """
    names = [*columns, *(f"{_RESPONSE}{name}" for name in response_fields)]
    table = ROLLOUTS.read(rollout, names) if wanted is None else ROLLOUTS.matching(rollout, "prompt_id", wanted, names)
    table = table.combine_chunks()
    prompt_ids, responses = _array(table, "prompt_id"), _array(table, "responses")
    if (twice := _first_repeated(prompt_ids)) is not None:
        raise UserError(f"{rollout}: prompt {twice} appears more than once")
    lengths = _lengths(responses)
    if (odd := np.flatnonzero(lengths != lengths[:1])).size:
        raise UserError(
            f"{rollout}: prompt {prompt_ids[int(odd[0])]} has {lengths[odd[0]]} responses, the first prompt "
            f"{lengths[0]}; every prompt needs the same number"
        )
    return Shard(rollout, table.drop_columns(["responses"]), responses.flatten(), whole=wanted is None)


def join_scores(shard: Shard, score: Path) -> NDArray[np.float64]:
    """The oracle's logits of a shard's responses, [N, K, K].

    Raises:
        UserError: scores are missing, repeated, of other responses or not finite; the prompt is named.
    """
    columns, ids, k = ["prompt_id", "response_ids", "logits"], shard.prompt_ids, shard.k
    read = SCORES.read(score, columns) if shard.whole else SCORES.matching(score, "prompt_id", ids, columns)
    scores = read.combine_chunks()
    scored = _array(scores, "prompt_id")
    if (twice := _first_repeated(scored)) is not None:
        raise UserError(f"{score}: prompt {twice} appears more than once")
    positions = pc.index_in(ids, value_set=scored)
    if positions.null_count:
        raise UserError(f"{score}: no scores for prompt {ids.filter(positions.is_null())[0]} of {shard.rollout}")
    if len(scored) != len(ids):
        extra = scored.filter(pc.invert(pc.is_in(scored, value_set=ids)))[0]
        raise UserError(f"{score}: scores for prompt {extra}, which is not in {shard.rollout}")
    scores = scores.take(positions)
    _refuse_other_responses(shard, _array(scores, "response_ids"), score)
    matrices = _array(scores, "logits")
    rows = matrices.flatten()
    if (_lengths(matrices) != k).any() or (_lengths(rows) != k).any():
        lengths = [[len(row) for row in matrix] for matrix in matrices.to_pylist()]
        odd = next(place for place, found in enumerate(lengths) if found != [k] * k)
        raise UserError(f"{score}: the logits of prompt {ids[odd]} are not a {k} x {k} matrix")
    logits_NKK = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(shard.prompts, k, k)
    broken = ~np.isfinite(logits_NKK).all(axis=(1, 2))
    if broken.any():
        raise UserError(f"{score}: prompt {ids[int(broken.argmax())]} has logits that are not finite")
    return logits_NKK


def join_vectors(shard: Shard, embed: Path) -> ShardVectors:
    """Where the vector of each of a shard's responses lies.

    Raises:
        UserError: a response is not embedded, or twice; its prompt or the response is named.
    """
    index, stored = EMBEDDING_INDEX.read(embed).combine_chunks(), open_vectors(embed)
    embedded = _array(index, "response_id")
    if (twice := _first_repeated(embedded)) is not None:
        raise UserError(f"{embed}: response {twice} is embedded more than once")
    positions = pc.index_in(shard.responses.field("response_id"), value_set=embedded)
    if positions.null_count:
        prompt = shard.prompt_ids[int(_mask(positions.is_null()).argmax()) // shard.k]
        raise UserError(f"{embed}: a response of prompt {prompt} is not embedded; embed this rollout")
    rows = _array(index, "row").take(positions).to_numpy().astype(np.int64)
    if rows.max() >= stored.shape[0] or rows.min() < 0:
        raise UserError(f"{embed}: its index points outside its {stored.shape[0]} vectors")
    return ShardVectors(stored, rows.reshape(shard.prompts, shard.k))


def join_pairs(shard: Shard, pairs: pa.Table) -> ShardPairs:
    """The pairs of a shard's prompts, of a table of pairs with their ``prompt_id``, ``chosen_id`` and ``rejected_id``.

    Raises:
        UserError: a pair is of other responses; its prompt is named.
    """
    positions = pc.index_in(shard.prompt_ids, value_set=pairs["prompt_id"].combine_chunks())
    paired = pairs.take(positions)
    ids_NK = shard.responses.field("response_id").to_numpy(zero_copy_only=False).reshape(shard.prompts, shard.k)
    sides = [paired[f"{side}_id"].to_numpy() for side in ("chosen", "rejected")]
    is_side_2NK = np.stack([ids_NK == side[:, None] for side in sides])
    found_2N, has_pair_N = is_side_2NK.any(axis=-1), ~_mask(positions.is_null())
    if (wrong := np.flatnonzero(has_pair_N & ~found_2N.all(axis=0))).size:
        prompt = shard.prompt_ids[int(wrong[0])]
        raise UserError(
            f"{shard.rollout}: the pair of prompt {prompt} is of other responses; build the pairs of this rollout"
        )
    # Equal responses of a prompt share an id: the first of them stands for all.
    places_N2 = np.where(found_2N, is_side_2NK.argmax(axis=-1), -1).T
    rows = [row if has_pair else None for row, has_pair in zip(paired.to_pylist(), has_pair_N, strict=True)]
    return ShardPairs(rows, places_N2)


def _refuse_other_responses(shard: Shard, scored_ids: pa.Array, score: Path) -> None:
    """The K scored responses of each prompt are the sampled ones, in the same order."""
    lengths, k = _lengths(scored_ids), shard.k
    if (odd := np.flatnonzero(lengths != k)).size:
        prompt = shard.prompt_ids[int(odd[0])]
        raise UserError(f"{score}: prompt {prompt} has scores of {lengths[odd[0]]} responses, expected {k}")
    equal = _mask(pc.equal(shard.responses.field("response_id"), scored_ids.flatten()))
    if not equal.all():
        prompt = shard.prompt_ids[int(equal.argmin()) // k]
        raise UserError(f"{score}: the scores of prompt {prompt} are of other responses; score this rollout")


def _array(table: pa.Table, name: str) -> pa.Array:
    """A column of a table without chunks."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return values.to_numpy(zero_copy_only=False).astype(bool)


def _first_repeated(ids: pa.Array) -> str | None:
    """The first id that occurs more than once, if any."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    counted = pc.value_counts(ids)
    return counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"].as_py()
