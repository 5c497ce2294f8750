"""What the stages report that sample, score and embed."""

from typing import Annotated

from nemo_sspo.artifacts.facts.base import Facts, Keys

Judge = Annotated[dict[str, int], Keys("judge_{}")]
"""What a judge counted that is asked: answers and ties, and what was paid for."""


class PromptFacts(Facts):
    """Of prepare_prompts."""

    prompts: int | None
    """Of all iterations."""
    prompts_per_iteration: int | None
    """In the largest portion."""
    held_out: int | None
    left_over: int | None
    """In no portion, where iterations have a limit."""
    mean_prompt_tokens: float | None
    dropped_duplicate: int | None
    dropped_too_long: int | None
    dropped_control_tokens: int | None
    also_held_out: int | None = None
    """Prompts that a file of held-out prompts has too."""
    selection: int | None = None
    """Prompts to choose a checkpoint by."""


class FurtherFacts(Facts):
    """Of further_prompts."""

    prompts: int | None
    used_before: int | None
    """Prompts of the same source that an earlier portion has, or that are kept for evaluation or selection."""
    mean_prompt_tokens: float | None
    dropped_duplicate: int | None
    dropped_too_long: int | None
    dropped_control_tokens: int | None


class ResponseFacts(Facts):
    """Of any responses."""

    prompts: int | None
    responses: int | None
    tokens: int | None
    mean_tokens: float | None
    """Of a response."""
    unfinished: int | None
    """Cut at the token limit."""
    empty: int | None
    duplicates: int | None
    """Responses whose text another response to the same prompt has too."""


class RolloutFacts(ResponseFacts):
    """Of the rollouts."""

    control_tokens: int | None = None
    """Responses whose text spells a control token."""
    control_ids: int | None = None
    """Responses with a control token before their end, which their text does not show."""
    ids_without_token: int | None = None
    """Distinct sampled ids that the tokenizer has no token for."""
    opens_reasoning: int | None = None
    """1 where the prompts end inside a reasoning that the chat template has begun."""
    given: int | None = None
    """Responses that were made elsewhere."""
    dropped_control_tokens: int | None = None
    """Prompts left out, because such a response spells a control token."""


class ScoreFacts(Facts):
    """Of score."""

    prompts: int | None
    rows: int | None
    """Ordered pairs of responses."""
    unique_rows: int | None
    """Rows that were computed; equal ones are computed once."""
    truncated_rows: int | None
    order_bias: float | None
    """Mean |l_ij + l_ji|, 0 for an oracle that is blind to the order of presentation."""
    judge: Judge = {}


class LabelledFacts(Facts):
    """Of score_labelled."""

    pairs: int | None
    judge: Judge = {}


class EmbeddingFacts(Facts):
    """Of embed."""

    responses: int | None
    """Distinct ones."""
    unique_texts: int | None
    long_texts: int | None
    """Longer than the encoder reads at once."""
    dimension: int | None
