"""Why a step of this machine failed, written down where `status`, `report` and `summary` find it.

A step's log alone does not distinguish a failure from a stopped runner. A step that starts again drops its record.
"""

import json

from nemo_sspo.artifacts.layout import RunLayout


def write_failure(layout: RunLayout, step_id: str, reason: str) -> None:
    """Keep the one line that says why a step failed. A full disk must not hide the failure itself."""
    try:
        layout.failure(step_id).parent.mkdir(parents=True, exist_ok=True)
        layout.failure(step_id).write_text(json.dumps({"reason": reason}) + "\n", encoding="utf-8")
    except OSError:
        return


def forget_failure(layout: RunLayout, step_id: str) -> None:
    """Forget the failure: the step starts again."""
    layout.failure(step_id).unlink(missing_ok=True)


def read_failure(layout: RunLayout, step_id: str, since: float = 0.0) -> str | None:
    """Why a step failed, if it has since a moment in seconds since the epoch; None otherwise."""
    file = layout.failure(step_id)
    try:
        if file.stat().st_mtime < since:
            return None
        return str(json.loads(file.read_text(encoding="utf-8"))["reason"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
