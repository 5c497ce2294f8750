"""Every table that a stage publishes: its file and its schema. Ids are content hashes, never row numbers."""

import pyarrow as pa

from nemo_sspo.artifacts.table import Table

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
