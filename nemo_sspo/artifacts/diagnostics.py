"""The schema of diagnostics.json: what the diagnose stage found in an iteration's judgements and responses.

A share is of the whole in [0, 1]; None means that there was nothing to measure.
"""

from pathlib import Path

from nemo_sspo.artifacts.versioned_file import FilePart, VersionedFile, read_versioned

SCHEMA_VERSION = 1


class SimilarityBin(FilePart):
    """Response pairs of one similarity bin."""

    low: float
    high: float
    count: int
    mean_similarity: float | None
    mean_margin: float | None
    """Mean of |P - 1/2| * 2 after the table's gate."""
    confident_share: float | None
    """Pairs with a margin above 0.8."""


class GateTable(FilePart):
    """S-SPPO's Fig. 2 under one gate."""

    gate: str
    """A gate's kind at its default parameters, or ``configured``: the run's own gate."""
    parameters: dict[str, float | str | dict[str, float]]
    correlation: float | None
    """Of similarity and margin."""
    mean_margin: float
    confident_share: float
    moved_share: float
    """Response pairs whose probability the gate moves by more than 0.1."""
    bins: list[SimilarityBin]


class OracleBias(FilePart):
    """Weaknesses of the oracle on this iteration's responses."""

    order_gap: float
    """Mean |l_ij + l_ji| in logits; 0 for an oracle that is blind to order."""
    order_lean: float
    """Mean (l_ij + l_ji) / 2 in logits; positive where the response shown first is preferred."""
    order_flip_share: float
    """Pairs whose winner is another one in the other order."""
    intransitive_share: float | None
    """Triples of responses on which the oracle goes in a circle; None for K = 2."""
    length_correlation: float | None
    """Of P_ij - 1/2 with the difference in tokens."""
    longer_wins_share: float | None
    """Of the pairs of different length, those that the longer response wins."""


class Duplicates(FilePart):
    """Responses that say the same."""

    exact_share: float
    """Response pairs with equal texts."""
    near_share: float
    """Response pairs with a similarity of at least 0.95, equal texts among them."""
    prompts_share: float
    """Prompts with at least two equal responses."""


class TargetHistograms(FilePart):
    """Training targets in bins of equal width over [0, 1], before and after the gate."""

    edges: list[float]
    chosen_before: list[int]
    chosen_after: list[int]
    rejected_before: list[int]
    rejected_after: list[int]
    moved_share: float | None
    """Training pairs with a target that the gate moved by more than 0.1."""


class ReliabilityBin(FilePart):
    """Labelled pairs of one confidence bin."""

    low: float
    high: float
    count: int
    mean_confidence: float | None
    accuracy: float | None


class Calibration(FilePart):
    """The oracle against labelled pairs (`evaluation.labelled_pairs`)."""

    pairs: int
    expected_calibration_error: float
    accuracy: float
    """Mean label in favour of the response that the oracle prefers."""
    brier_score: float
    bins: list[ReliabilityBin]


class Collapse(FilePart):
    """Diversity of the K responses to a prompt; means are over prompts."""

    text_prompts: int
    """Prompts behind the n-gram metrics, a seeded sample of about 2,000 of a larger iteration."""
    distinct_1: float | None
    distinct_2: float | None
    """Distinct n-grams of policy tokens over all n-grams of a prompt's responses."""
    self_bleu: float | None
    """BLEU-4 of each response against the others; 1 where all are equal."""
    mean_similarity: float
    """Of the response pairs."""
    near_duplicate_share: float
    """Response pairs with a similarity of at least 0.95."""
    effective_rank: float
    """Of all response embeddings: between 1 and the embedding's dimension."""
    prompt_effective_rank: float
    """Of a prompt's K response embeddings: between 1 and K."""
    mean_tokens: float
    token_percentiles: dict[str, float]
    """Response length in tokens at percentiles 5, 25, 50, 75 and 95, and the longest as ``100``."""
    unfinished_share: float
    """Responses cut at the length limit."""


class Diagnostics(VersionedFile):
    """All of diagnostics.json."""

    schema_version: int = SCHEMA_VERSION
    iteration: int
    prompts: int
    responses_per_prompt: int
    response_pairs: int
    similarity_margin: list[GateTable]
    """First the ungated table (``none``), then every kind of gate at its defaults, then ``configured``."""
    oracle: OracleBias
    duplicates: Duplicates
    targets: TargetHistograms
    calibration: Calibration | None
    collapse: Collapse


def read_diagnostics(path: Path) -> Diagnostics:
    """Read a diagnostics.json.

    Raises:
        UserError: it was written by another version of the schema.
    """
    return read_versioned(path, Diagnostics, "diagnostics")
