"""Which checkpoint each iteration took."""

from nemo_sspo.artifacts.layout import SELECTION
from nemo_sspo.artifacts.selection import SelectionResult, read_selection
from nemo_sspo.errors import UserError
from nemo_sspo.report.facts.record import RunRecord


def selection(run: RunRecord, iteration: int) -> SelectionResult | None:
    """What `select_model` decided; None before it is published, where there is no choice, or when it cannot be read."""
    for published in run.of("select_model", iteration):
        try:
            return read_selection(published.path / SELECTION)
        except (UserError, OSError) as error:
            run.unreadable.append(str(error))
    return None
