"""The interface of what displays a run while it runs."""

from collections.abc import Mapping
from typing import Any, Protocol

from nemo_sspo.launch.plan import Step


class Display(Protocol):
    """Receives the events of the runner."""

    def skipped(self, step: Step) -> None:
        """The step's artifact is there already."""

    def left_out(self, step: Step, reason: str) -> None:
        """The run has ended before the step."""

    def started(self, step: Step) -> None:
        """A process works on the step."""

    def advanced(self, step: Step, state: Mapping[str, Any]) -> None:
        """The step runs, and what it last reported: done, total, unit, note; nothing before its first report."""

    def finished(self, step: Step, seconds: float) -> None:
        """The step's artifact is published."""

    def stopping(self, step: Step, seconds: float) -> None:
        """The run ends once the step has saved its state; it has this many seconds."""
