"""What the stages report that build and diagnose pairs."""

from typing import Annotated

from nemo_sspo.artifacts.facts.base import Facts, Keys


class PairFacts(Facts):
    """Of build_pairs. Means are over the pairs, and None without pairs."""

    prompts: int | None
    pairs: int | None
    dropped: Annotated[dict[str, int], Keys("dropped_{}")]
    """Prompts without a pair, by reason."""
    margin_before: float | None
    """Difference of a pair's win rates."""
    margin_after: float | None
    """Difference of its targets."""
    similarity_mean: float | None
    gate_moved_share: float | None
    """Pairs with a target that the gate moved by more than `build_pairs.MOVED`."""
    made_with: Annotated[dict[str, str], Keys("content of {}")] = {}
    """Fingerprints of the oracle and encoder behind scores and vectors, by setting."""


class DiagnosisFacts(Facts):
    """Of diagnose; diagnostics.json has all of them, and more."""

    response_pairs: int | None
    order_flip_share: float | None
    intransitive_share: float | None
    near_duplicate_share: float | None
    self_bleu: float | None
    effective_rank: float | None
