"""The rollout engine's own log-probs of the pairs' responses, summed. Arrow and NumPy only."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.artifacts.shard import read_shard
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.errors import UserError


def rollout_logps(response_ids: Sequence[pa.Array], rollouts: Sequence[Artifact]) -> NDArray[np.float64]:
    """log pi(y|x) of responses under the policy that sampled them, in nats; NaN where it was not kept.

    Args:
        response_ids: the columns whose responses are wanted, each [N].
        rollouts: the shards that they were sampled in, together.

    Returns: [N, len(response_ids)].

    Raises UserError when a response is in none of the shards.
    """
    sampled = [_sums(rollout) for rollout in rollouts]
    ids = pa.concat_arrays([ids for ids, _ in sampled])
    sums = np.concatenate([sums for _, sums in sampled])
    return np.stack([sums[_positions(wanted, ids)] for wanted in response_ids], axis=1)


def _sums(rollout: Artifact) -> tuple[pa.Array, NDArray[np.float64]]:
    """Ids of a shard's responses and the sums of their tokens' log-probs."""
    responses = read_shard(rollout.path, ["prompt_id"], ["response_id", "token_ids", "logprobs"]).responses
    logprobs = responses.field("logprobs")
    parents = pc.list_parent_indices(logprobs).to_numpy()
    values = logprobs.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    sums: NDArray[np.float64] = np.bincount(parents, weights=values, minlength=len(responses)).astype(np.float64)
    lengths = (
        lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        for lists in (logprobs, responses.field("token_ids"))
    )
    sums[np.not_equal(*lengths)] = np.nan
    return responses.field("response_id"), sums


def _positions(wanted: pa.Array, ids: pa.Array) -> NDArray[np.int64]:
    positions = pc.index_in(wanted, value_set=ids)
    if positions.null_count:
        missing = wanted.filter(positions.is_null())[0]
        raise UserError(f"response {missing} of a pair is in none of the rollouts; build the pairs of these rollouts")
    return positions.to_numpy(zero_copy_only=False).astype(np.int64)
