"""Arrow schemas of every table a stage publishes. Ids are content hashes, never row numbers."""

import hashlib
import json
from collections.abc import Sequence

import pyarrow as pa

_token_ids = pa.list_(pa.int32())

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

PROMPTS = pa.schema([("prompt_id", pa.string()), ("messages", MESSAGES), ("prompt_token_ids", _token_ids)])
"""One prompt a row; token ids have the chat template and the generation prompt applied, once and for all."""

RESPONSE = pa.struct(
    [
        ("response_id", pa.string()),
        ("text", pa.string()),
        ("token_ids", _token_ids),
        ("logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
    ]
)

ROLLOUTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("messages", MESSAGES),
        ("prompt_token_ids", _token_ids),
        ("responses", pa.list_(RESPONSE)),
    ]
)
"""K responses a prompt. `prompt` is the conversation as one text, `messages` the same message by message for oracles
with a chat template (null where only the text is known). Token ids hold the end-of-turn token when ``finish_reason``
is ``stop``; log-probs are the policy's own, before temperature, one per token id, and null where the policy did not
sample the response (`rollout.source`)."""

SCORES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_ids", pa.list_(pa.string())),
        ("logits", pa.list_(pa.list_(pa.float32()))),
        ("truncated_rows", pa.int32()),
    ]
)
"""Raw K x K oracle logits of a prompt, diagonal 0, first index shown first."""

EMBEDDING_INDEX = pa.schema([("response_id", pa.string()), ("row", pa.int32())])
"""Where a response's vector lies in the shard's Zarr array."""

PAIRS = pa.schema(
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
)
"""A training pair with its calibrated targets and what they came from: win rates before the gate and similarity."""

DROPPED = pa.schema([("prompt_id", pa.string()), ("reason", pa.string())])
"""Prompts without a pair, and why."""

REFERENCE = pa.schema(
    [
        ("pair_id", pa.string()),
        ("chosen_logp", pa.float32()),
        ("rejected_logp", pa.float32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
    ]
)
"""Summed log-probs of both responses under the reference policy, in nats."""

EVALUATION = pa.schema([("prompt_id", pa.string()), ("win_vs_previous", pa.float64()), ("win_vs_base", pa.float64())])
"""Mean oracle win probability of the new policy's responses on one held-out prompt."""

MATCHUPS = pa.schema(
    [
        ("opponent", pa.int32()),
        ("prompt_id", pa.string()),
        ("win", pa.float64()),
        ("length_difference", pa.float64()),
    ]
)
"""The same against every earlier policy (0: the base), and how many tokens longer the new policy's responses are."""

CANDIDATES = pa.schema(
    [
        ("candidate", pa.int32()),
        ("prompt_id", pa.string()),
        ("win", pa.float64()),
        ("length_difference", pa.float64()),
    ]
)
"""The same of every candidate of an iteration against the policy that it started from, on one selection prompt."""

BEST_OF_N = pa.schema([("prompt_id", pa.string()), ("response_id", pa.string()), ("win_vs_base", pa.float64())])
"""The sample that the oracle kept of a held-out prompt, and its mean win probability against the base."""

LABELLED = pa.schema([("p_first", pa.float64()), ("label", pa.float64()), ("truncated", pa.bool_())])
"""Labelled comparisons: P(a is better) as the oracle says with both orders combined, and as the label says."""


_CANONICAL = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def content_id(*parts: str | Sequence[int] | Sequence[dict[str, str]]) -> str:
    """Identity of a prompt, response or pair: 32 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode()).hexdigest()[:32]
