"""Which checkpoint each iteration took."""

from nemo_sspo.artifacts.layout import SELECTION
from nemo_sspo.artifacts.selection import SelectionResult, read_selection
from nemo_sspo.report.facts.record import RunRecord


def selection(run: RunRecord, iteration: int) -> SelectionResult | None:
    """What `select_model` decided; None before it is published, where there is no choice, or when it cannot be read."""
    published = run.of("select_model", iteration)
    return run.read(lambda: read_selection(published[0].path / SELECTION), None) if published else None
