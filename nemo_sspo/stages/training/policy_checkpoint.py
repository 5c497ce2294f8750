"""Which of an iteration's checkpoints its policy is."""

from pathlib import Path

from nemo_sspo.artifacts.layout import SELECTION, candidate_checkpoint
from nemo_sspo.artifacts.selection import SelectionResult, read_selection
from nemo_sspo.stages.runner.context import StageContext


def policy_checkpoint(context: StageContext) -> Path:
    """The NeMo checkpoint of the policy that this step's inputs name: the chosen one, where there was a choice."""
    selection = policy_selection(context)
    chosen, candidates = (0, 1) if selection is None else (selection.chosen, len(selection.candidates))
    return context.input("checkpoint").file(candidate_checkpoint(chosen, candidates))


def policy_selection(context: StageContext) -> SelectionResult | None:
    """How that policy was chosen; None where an iteration has one checkpoint, and of the base."""
    if "selection" not in context.inputs:
        return None
    return read_selection(context.input("selection").file(SELECTION))
