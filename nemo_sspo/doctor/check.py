"""A named check: what was measured, what it may be at most, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "warning", "failed", "not run"]
"""A warning is what a run survives, more slowly or less safely."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    verdict: Verdict
    measured: float | str | None = None
    bound: float | str | None = None
    """What `measured` may be at most, or what it must be, in words."""
    unit: str = ""
    stand_in: str | None = None
    """What stood in for hardware that is not here: ``gloo``, ``CPU``. None where the real thing was checked."""
    note: str = ""
    """One line: what was compared, or what to do. It names no host, no path and no user: it is sent back."""


def at_most(
    name: str, measured: float, bound: float, *, unit: str = "", stand_in: str | None = None, note: str = ""
) -> Check:
    """Passed where `measured` is a number and at most `bound`."""
    verdict: Verdict = "passed" if measured <= bound else "failed"  # not a number fails
    return Check(name, verdict, measured, bound, unit, stand_in, note)


def judged(
    name: str,
    sound: bool,
    measured: float | str | None,
    bound: float | str | None = None,
    *,
    advice: str,
    otherwise: Verdict = "failed",
) -> Check:
    """Passed where `sound`; elsewhere `otherwise`, with what to do."""
    return Check(name, "passed" if sound else otherwise, measured, bound, note="" if sound else advice)


def not_run(name: str, why: str) -> Check:
    """A check for which something is missing."""
    return Check(name, "not run", note=why)


def exit_code(checks: Sequence[Check]) -> int:
    """0: all passed, or warn; 1: one failed; 2: none failed, but one could not be run."""
    verdicts = {check.verdict for check in checks}
    return 1 if "failed" in verdicts else 2 if "not run" in verdicts else 0
