"""What the stages report that train, and those that convert weights."""

from typing import Literal

from nemo_sspo.artifacts.facts.base import Facts


class WeightFacts(Facts):
    """Of import_policy, export and export_candidate."""

    parameters: int | None


class ReferenceFacts(Facts):
    """Of reference_logps."""

    pairs: int | None
    logp_per_token: float | None
    """In nats, over all responses of the pairs."""
    source: Literal["rollout", "recompute"] | None
    checked_pairs: int | None
    """Pairs whose log-probs both the rollout engine and Megatron have computed."""
    largest_difference: float | None
    """Of a response's log-prob over those pairs, in nats; None where none was compared."""
    mean_difference: float | None
    """Rollout minus Megatron."""


class TrainFacts(Facts):
    """Of train."""

    pairs: int | None
    steps: int | None
    """Optimizer steps."""
    loss_first: float | None
    loss_last: float | None
    d_chosen_last: float | None
    """Mean log-ratio of the chosen responses in the last step, in nats."""
    d_rejected_last: float | None
    step1_loss: float | None
    """The preference loss of the first step, without repulsion."""
    head: str | None
    """Which head computed the log-probs."""
    step1_closed_form: float | None = None
    """What `step1_loss` is with every log-ratio 0; None where the loss has no such form here."""
