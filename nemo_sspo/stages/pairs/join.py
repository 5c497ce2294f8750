"""A shard as pairs are built of it: what was judged of its responses, with their logits and their similarities.

Legend: N prompts, K responses.
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import SPELLED
from nemo_sspo.artifacts.shard import Shard, ShardVectors, join_scores, join_vectors, read_shard
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.config.stages import Judging
from nemo_sspo.errors import UserError
from nemo_sspo.objective.similarity import cosines
from nemo_sspo.stages.sampling.judged_text import reader

_COLUMNS = ("prompt_id", "prompt_token_ids")
_RESPONSE_FIELDS = ("response_id", "text", "token_ids", "finish_reason")


@dataclass(frozen=True)
class JoinedShard(Shard):
    """A shard's prompts with their responses, scores and embeddings."""

    logits_NKK: NDArray[np.float64]
    vectors: ShardVectors
    spelled: frozenset[str] = frozenset()
    """Ids of the responses whose text spells a control token of the policy's."""


def join_shard(rollout: Artifact, score: Artifact, embed: Artifact, judging: Judging) -> JoinedShard:
    """Read and join one shard; a response's text is the part that was judged.

    Raises:
        UserError: the artifacts are not of one shard (`artifacts.shard`), or there is no prompt or no pair in it.
    """
    shard = read_shard(rollout.path, _COLUMNS, _RESPONSE_FIELDS)
    if not shard.prompts:
        raise UserError(f"{rollout.path}: holds no prompt")
    if shard.k < 2:
        raise UserError(f"{rollout.path}: {shard.k} response per prompt; a pair needs at least 2")
    logits_NKK, vectors = join_scores(shard, score.path), join_vectors(shard, embed.path)
    judged = replace(shard, responses=_judged(shard.responses, judging, rollout))
    return JoinedShard(**vars(judged), logits_NKK=logits_NKK, vectors=vectors, spelled=read_spelled(rollout))


def similarities(shard: JoinedShard, block: int = 256) -> NDArray[np.float64]:
    """S_ij = max(0, cosine) of a shard's responses, [N, K, K], in blocks of prompts to bound memory.

    Raises:
        UserError: a vector is not finite; the prompt is named.
    """
    similarity_NKK = np.empty((shard.prompts, shard.k, shard.k))
    for start in range(0, shard.prompts, block):
        cosines_BKK = cosines(shard.vectors.of(slice(start, start + block)))
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
