"""Of a step's log the one line that tells most: no progress bar, and no library's remark on itself."""

import re
from collections.abc import Sequence

_BAR = r"\d+%\||(?:it/s|s/it)\]"
_REMARK = r"\b(?:DEBUG|INFO|WARNING|WARN)\b|\[NeMo [DIW]\b|\[Gloo\]|\b\w*Warning\b"
# Code under a warning or in a traceback, and rules.
_CHATTER = re.compile(rf"{_BAR}|{_REMARK}|^\s|^\W*$")
_FAILURE = re.compile(r"^(?:\[rank\d+\]: ?)?(?:error: |[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b)")
# torchrun's own, below that of the rank which failed.
_OF_THE_LAUNCHER = "ChildFailedError"


def telling_line(lines: Sequence[str]) -> str:
    """The last line that a stage itself has said; "" where there is none."""
    return next((line.strip() for line in reversed(lines) if not _CHATTER.search(line)), "")


def failing_line(lines: Sequence[str]) -> str:
    """The last line that names an error; without one, the last that a stage has said, or that there is."""
    failures = (line for line in reversed(lines) if _FAILURE.match(line) and _OF_THE_LAUNCHER not in line)
    last = (line for line in reversed(lines) if line.strip())
    return (next(failures, "") or telling_line(lines) or next(last, "")).strip()
