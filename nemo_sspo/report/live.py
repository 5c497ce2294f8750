"""What a user sees while a run goes on: bars on a terminal, one line per event elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nemo_sspo.words import counted


class NamedStep(Protocol):
    """As much of a step as is drawn."""

    @property
    def step_id(self) -> str:
        """Name of the step."""
        ...


_STOPPING = "told to stop: {step} ends its step and saves its state (up to {seconds:.0f} s; Ctrl-C ends it at once)"


_OFTEN, _LATER = 20.0, 300.0
"""Seconds of silence after which it is told what runs: at first, and after `_FIRST` seconds."""
_FIRST = 600.0
_NAMED = 3


def _how_far(state: Mapping[str, Any]) -> str:
    """``30 of 64 prompts, note``; "" before a step has reported."""
    if not state:
        return ""
    counted = f"{state.get('done', 0):,} of {state.get('total', 0):,} {state.get('unit', '')}"
    return ", ".join(filter(None, (counted.strip(), str(state.get("note", "")))))


class Lines:
    """One line per event, for logs and pipes, and in between how far the running steps are."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._skipped = 0
        self._stopped = False
        self._begun = time.monotonic()
        self._spoken = self._begun
        self._running: dict[str, float] = {}
        """When each running step began."""
        self._far: dict[str, str] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def skipped(self, step: NamedStep) -> None:
        """Count it; the first start says how many there were."""
        self._done += 1
        self._skipped += 1

    def left_out(self, step: NamedStep, reason: str) -> None:
        """Count it; the first one says why."""
        self._done += 1
        if not self._stopped:
            self._say(reason)
        self._stopped = True

    def started(self, step: NamedStep) -> None:
        """Announce the step."""
        if self._skipped:
            self._say(f"published already: {self._skipped} of {counted(self._total, 'step')}")
            self._skipped = 0
        self._running[step.step_id] = time.monotonic()
        self._say(f"start  {step.step_id}")

    def advanced(self, step: NamedStep, state: Mapping[str, Any]) -> None:
        """Where nothing was said for a while, say what runs and how far it is."""
        self._far[step.step_id] = _how_far(state)
        now = time.monotonic()
        if now - self._spoken < (_OFTEN if now - self._begun < _FIRST else _LATER):
            return
        said = [
            f"{name} {self._far.get(name) or f'loads what it needs, {now - begun:.0f} s so far'}"
            for name, begun in self._running.items()
        ]
        more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        self._say(f"at     {'; '.join(said[:_NAMED])}{more}")

    def finished(self, step: NamedStep, seconds: float) -> None:
        """Announce the step's end."""
        self._done += 1
        self._running.pop(step.step_id, None)
        self._say(f"done   {step.step_id} in {seconds:.1f} s ({self._done} of {self._total})")

    def stopping(self, step: NamedStep, seconds: float) -> None:
        """Say what is waited for."""
        self._say(_STOPPING.format(step=step.step_id, seconds=seconds))

    def _say(self, text: str) -> None:
        self._spoken = time.monotonic()
        elapsed = self._spoken - self._begun
        self._console.print(f"[{elapsed:7.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)


class Bars:
    """A bar for the run and one below it for every running step."""

    def __init__(self, console: Console, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._run = self._progress.add_task("run", total=total, unit="steps", note="")
        self._stopped = False
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def skipped(self, step: NamedStep) -> None:
        """Advance the run's bar."""
        self._progress.advance(self._run)

    def left_out(self, step: NamedStep, reason: str) -> None:
        """Advance the run's bar; the first one says why."""
        self._progress.advance(self._run)
        if not self._stopped:
            self._progress.console.print(f"  {reason}", markup=False, highlight=False)
        self._stopped = True

    def started(self, step: NamedStep) -> None:
        """Add a bar that pulses until the step reports a total."""
        self._tasks[step.step_id] = self._progress.add_task(step.step_id, total=None, unit="", note="starting")

    def advanced(self, step: NamedStep, state: Mapping[str, Any]) -> None:
        """Move the step's bar, once the step has reported."""
        if not state:
            return
        self._progress.update(
            self._tasks[step.step_id],
            completed=state.get("done", 0),
            total=state.get("total") or None,
            unit=str(state.get("unit", "")),
            note=str(state.get("note", "")),
        )

    def finished(self, step: NamedStep, seconds: float) -> None:
        """Replace the step's bar by a line."""
        self._progress.remove_task(self._tasks.pop(step.step_id))
        self._progress.advance(self._run)
        self._progress.console.print(f"  {step.step_id:<32} {seconds:7.1f} s", markup=False, highlight=False)

    def stopping(self, step: NamedStep, seconds: float) -> None:
        """Say what is waited for."""
        self._progress.console.print(
            f"  {_STOPPING.format(step=step.step_id, seconds=seconds)}", markup=False, highlight=False
        )


def live_display(console: Console, total: int) -> Lines | Bars:
    """Bars on a terminal, lines elsewhere. A context manager."""
    return Bars(console, total) if console.is_terminal else Lines(console, total)
