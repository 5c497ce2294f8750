"""A step that ended without its artifact, and why, from the end of its log."""

from collections.abc import Sequence
from pathlib import Path

from nemo_sspo.launch.log_lines import failing_line
from nemo_sspo.launch.plan import Step

_TAIL_LINES = 20


class StepFailed(Exception):
    """A step ended without its artifact."""

    def __init__(self, step: Step, exit_code: int, log: Path) -> None:
        super().__init__(step.step_id)
        self.step = step
        self.exit_code = exit_code
        self.log = log

    @property
    def reason(self) -> str:
        """Why, in one line."""
        lines = self._lines()
        last = failing_line(lines) or "it has said nothing"
        return (self._refusal(lines) or f"{_ending(self.exit_code)}: {last}").removeprefix("error: ")

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def _refusal(self, lines: Sequence[str]) -> str | None:
        """The line with which the step refused its input, if it did."""
        errors = [line for line in lines if line.startswith("error: ")]
        # torchrun ends with 1 where its ranks ended with 2.
        is_refusal = self.exit_code == 2 or (self.exit_code == 1 and self.step.ranks > 1)
        return errors[-1] if is_refusal and errors else None

    def __str__(self) -> str:
        lines = self._lines()
        if refusal := self._refusal(lines):
            return f"{refusal}\n  in {self.step.step_id}; its log is {self.log}"
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return (
            f"error: {self.step.step_id} {_ending(self.exit_code)}; the end of its log, {self.log}:\n{tail}\n"
            "Published steps are kept: the same command continues from here once the cause is gone."
        )


def _ending(code: int) -> str:
    if code == 0:
        return "ended without publishing its artifact"
    if code == 128 + 9:
        return "was killed (signal 9: out of memory, or by hand)"
    return f"was ended by signal {code - 128}" if code > 128 else f"failed with exit code {code}"
