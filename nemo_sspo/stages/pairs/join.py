"""Join a shard's rollouts, scores and embeddings by content ids, and refuse artifacts that do not match.

Legend: N prompts, K responses, M vectors, D embedding size, B prompts of a block. Columns stay Arrow arrays: nothing
here loops over responses.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import SPELLED
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import EMBEDDING_INDEX, ROLLOUTS, SCORES
from nemo_sspo.artifacts.vectors import open_vectors
from nemo_sspo.config.stages import Judging
from nemo_sspo.errors import UserError
from nemo_sspo.objective.similarity import cosines
from nemo_sspo.stages.sampling.judged_text import reader

if TYPE_CHECKING:
    import zarr

_ROLLOUT_COLUMNS = (
    "prompt_id",
    "prompt_token_ids",
    *(f"responses.list.element.{name}" for name in ("response_id", "text", "token_ids", "finish_reason")),
)
"""All but the prompts' texts and the log-probs, which can be half of a shard."""


@dataclass(frozen=True)
class JoinedShard:
    """A shard's prompts with their responses, scores and embeddings."""

    prompt_ids: pa.Array
    """[N]"""
    prompt_token_ids: pa.Array
    """[N] of lists."""
    responses: pa.StructArray
    """[N * K], prompt by prompt."""
    logits_NKK: NDArray[np.float64]
    stored_vectors: "zarr.Array"
    """[M, D]: unit vectors of the shard's distinct responses, up to the rounding of their type; they stay on disk."""
    vector_rows_NK: NDArray[np.int64]
    spelled: frozenset[str] = frozenset()
    """Ids of the responses whose text spells a control token of the policy's."""

    @property
    def prompts(self) -> int:
        """N."""
        return len(self.prompt_ids)

    @property
    def k(self) -> int:
        """Responses per prompt."""
        return self.vector_rows_NK.shape[1]

    def vectors(self, prompts: slice) -> NDArray[np.floating]:
        """Read the vectors of some prompts' responses, [prompts, K, D]."""
        rows_BK = self.vector_rows_NK[prompts]
        first = int(rows_BK.min())
        # They were stored in the order of the responses, so those of neighbours lie together.
        return np.asarray(self.stored_vectors[first : int(rows_BK.max()) + 1])[rows_BK - first]


def join_shard(rollout: Artifact, score: Artifact, embed: Artifact, judging: Judging) -> JoinedShard:
    """Read and join one shard; a response's text is the part that was judged.

    Raises:
        UserError: prompts or responses are missing, repeated or differ between the artifacts, K varies, or a logit is
            not finite; the prompt is named.
    """
    rollouts = ROLLOUTS.read(rollout.path, _ROLLOUT_COLUMNS).combine_chunks()
    scores = SCORES.read(score.path).combine_chunks()
    prompt_ids = _array(rollouts, "prompt_id")
    k = _uniform_k(prompt_ids, _array(rollouts, "responses"), rollout)
    responses = _judged(_array(rollouts, "responses").flatten(), judging, rollout)

    scored = scores.take(_one_to_one(prompt_ids, _array(scores, "prompt_id"), rollout, score))
    response_ids = responses.field("response_id")
    _same_responses(prompt_ids, response_ids, _array(scored, "response_ids"), k, score)
    logits_NKK = _logits(prompt_ids, _array(scored, "logits"), k, score)

    index = EMBEDDING_INDEX.read(embed.path).combine_chunks()
    stored = open_vectors(embed.path)
    rows_NK = _vector_rows(prompt_ids, response_ids, index, stored.shape[0], k, embed)
    return JoinedShard(
        prompt_ids, _array(rollouts, "prompt_token_ids"), responses, logits_NKK, stored, rows_NK, read_spelled(rollout)
    )


def similarities(shard: JoinedShard, block: int = 256) -> NDArray[np.float64]:
    """S_ij = max(0, cosine) of a shard's responses, [N, K, K], in blocks of prompts to bound memory.

    Raises:
        UserError: a vector is not finite; the prompt is named.
    """
    similarity_NKK = np.empty((shard.prompts, shard.k, shard.k))
    for start in range(0, shard.prompts, block):
        cosines_BKK = cosines(shard.vectors(slice(start, start + block)))
        broken = ~np.isfinite(cosines_BKK).all(axis=(1, 2))
        if broken.any():
            raise UserError(
                f"prompt {shard.prompt_ids[start + int(broken.argmax())]}: an embedding is not finite; embed it again"
            )
        similarity_NKK[start : start + block] = cosines_BKK.clip(0.0, 1.0)
    return similarity_NKK


def read_spelled(rollout: Artifact) -> frozenset[str]:
    """Ids of a rollout's responses whose text spells a control token; the file is there where there is one."""
    path = rollout.path / SPELLED
    return frozenset(json.loads(path.read_bytes())) if path.exists() else frozenset()


def _judged(responses: pa.StructArray, judging: Judging, rollout: Artifact) -> pa.StructArray:
    """Responses whose text is the part that was judged."""
    if judging.reasoning == "judged":
        return responses
    read, names = reader(judging, rollout), [field.name for field in responses.type]
    texts = pa.array([read(text) for text in responses.field("text").to_pylist()], type=pa.string())
    return pa.StructArray.from_arrays([texts if name == "text" else responses.field(name) for name in names], names)


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)


def _uniform_k(prompt_ids: pa.Array, responses: pa.Array, artifact: Artifact) -> int:
    counts = responses.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    if not len(counts):
        raise UserError(f"{artifact.path}: holds no prompt")
    k = int(counts[0])
    odd = np.flatnonzero(counts != k)
    if len(odd):
        raise UserError(
            f"{artifact.path}: prompt {prompt_ids[int(odd[0])]} has {counts[odd[0]]} responses, the first prompt {k}; "
            "every prompt needs the same number"
        )
    if k < 2:
        raise UserError(f"{artifact.path}: {k} response per prompt; a pair needs at least 2")
    return k


def _one_to_one(wanted: pa.Array, found: pa.Array, rollout: Artifact, score: Artifact) -> pa.Array:
    """Positions of `wanted` in `found`; both must hold the same ids, each once."""
    for ids, artifact in ((wanted, rollout), (found, score)):
        if (twice := _first_repeated(ids)) is not None:
            raise UserError(f"{artifact.path}: prompt {twice} appears more than once")
    positions = pc.index_in(wanted, value_set=found)
    if positions.null_count:
        missing = wanted.filter(positions.is_null())[0]
        raise UserError(f"{score.path}: no scores for prompt {missing} of {rollout.path}")
    if len(found) != len(wanted):
        extra = found.filter(pc.invert(pc.is_in(found, value_set=wanted)))[0]
        raise UserError(f"{score.path}: scores for prompt {extra}, which is not in {rollout.path}")
    return positions


def _first_repeated(ids: pa.Array) -> str | None:
    """The first id that occurs more than once, if any."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    counted = pc.value_counts(ids)
    return counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"].as_py()


def _same_responses(
    prompt_ids: pa.Array, response_ids: pa.Array, scored_ids: pa.Array, k: int, score: Artifact
) -> None:
    """The K scored responses of each prompt are the sampled ones, in the same order."""
    lengths = scored_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    if (odd := np.flatnonzero(lengths != k)).size:
        prompt = prompt_ids[int(odd[0])]
        raise UserError(f"{score.path}: prompt {prompt} has scores of {lengths[odd[0]]} responses, expected {k}")
    equal = pc.equal(response_ids, scored_ids.flatten()).to_numpy(zero_copy_only=False).astype(bool)
    if not equal.all():
        prompt = prompt_ids[int(equal.argmin()) // k]
        raise UserError(f"{score.path}: the scores of prompt {prompt} are of other responses; score this rollout")


def _logits(prompt_ids: pa.Array, logits: pa.Array, k: int, score: Artifact) -> NDArray[np.float64]:
    rows = logits.flatten()
    if len(rows) != len(prompt_ids) * k or set(pc.unique(rows.value_lengths()).to_pylist()) != {k}:
        lengths = [[len(row) for row in matrix] for matrix in logits.to_pylist()]
        odd = next(index for index, found in enumerate(lengths) if found != [k] * k)
        raise UserError(f"{score.path}: the logits of prompt {prompt_ids[odd]} are not a {k} x {k} matrix")
    logits_NKK = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(prompt_ids), k, k)
    broken = ~np.isfinite(logits_NKK).all(axis=(1, 2))
    if broken.any():
        raise UserError(f"{score.path}: prompt {prompt_ids[int(broken.argmax())]} has logits that are not finite")
    return logits_NKK


def _vector_rows(
    prompt_ids: pa.Array, response_ids: pa.Array, index: pa.Table, vectors: int, k: int, embed: Artifact
) -> NDArray[np.int64]:
    """Row of every response in the shard's vectors, [N, K]."""
    embedded = _array(index, "response_id")
    if (twice := _first_repeated(embedded)) is not None:
        raise UserError(f"{embed.path}: response {twice} is embedded more than once")
    positions = pc.index_in(response_ids, value_set=embedded)
    if positions.null_count:
        prompt = prompt_ids[int(positions.is_null().to_numpy(zero_copy_only=False).argmax()) // k]
        raise UserError(f"{embed.path}: a response of prompt {prompt} is not embedded; embed this rollout")
    rows = _array(index, "row").take(positions).to_numpy().astype(np.int64)
    if rows.max() >= vectors or rows.min() < 0:
        raise UserError(f"{embed.path}: its index points outside its {vectors} vectors")
    return rows.reshape(len(prompt_ids), k)
