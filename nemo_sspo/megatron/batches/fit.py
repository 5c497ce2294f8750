"""Check pairs against the policy: every token has an embedding row, every sequence is within the positions."""

from __future__ import annotations

from pathlib import Path

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.tokens.lengths import model_positions


def require_fit(pairs: PairTable, hf_dir: Path) -> None:
    """Refuse pairs with tokens that the policy has no embedding for, which Megatron's ranks read as zeros, or with
    sequences beyond its positions.

    Raises:
        UserError: a pair is such; it is named.
    """
    rows = read_hf_config(hf_dir).require("vocab_size")
    for pair_id, highest in zip(pairs.pair_ids, pairs.highest_ids(), strict=True):
        if highest >= rows:
            raise UserError(
                f"pair {pair_id}: token id {highest} is beyond the {rows} rows of the policy in {hf_dir}; its "
                "tokenizer is another model's, or has tokens that were added without rows"
            )
    positions = model_positions(hf_dir)
    for pair_id, tokens in zip(pairs.pair_ids, pairs.row_tokens(), strict=True):
        if positions is not None and tokens > positions:
            raise UserError(
                f"pair {pair_id}: {tokens} tokens, over the {positions} positions of the policy in {hf_dir} "
                "(max_position_embeddings); lower rollout.max_response_tokens, or set pairs.max_tokens"
            )
