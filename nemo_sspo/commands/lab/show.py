"""How a study's hypotheses are printed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.commands.terminal import say

if TYPE_CHECKING:
    from nemo_sspo.lab.results import Finding


def show_findings(console: Console, findings: "Sequence[Finding]") -> None:
    """Each with its verdict and numbers, and how many held."""
    for finding in findings:
        verdict = "held  " if finding.held else "FAILED"
        say(console, f"{verdict}  {finding.name}: {finding.claim} ({finding.source})", hanging=8)
        numbers = ", ".join(f"{name} {number:.4g}" for name, number in finding.measured.items())
        say(console, numbers, "dim", indent=8)
    failed = sum(not finding.held for finding in findings)
    say(console, f"{len(findings) - failed} hypotheses held, {failed} failed")
