"""What is shown while a run goes on."""

import io
from dataclasses import dataclass

from rich.console import Console

from nemo_sspo.report.live import Bars, Lines, live_display


@dataclass(frozen=True)
class Named:
    step_id: str


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def test_a_pipe_gets_one_line_per_event():
    out = console(False)
    with live_display(out, 3) as display:
        assert isinstance(display, Lines)
        display.skipped(Named("prepare_prompts"))
        display.started(Named("iter_1.train"))
        display.advanced(Named("iter_1.train"), {"done": 1, "total": 2})
        display.finished(Named("iter_1.train"), 2.5)
        display.left_out(Named("iter_2.rollout"), "stopped after iteration 1: why")
        display.left_out(Named("iter_2.train"), "stopped after iteration 1: why")
    lines = [line.partition("] ")[2] for line in out.file.getvalue().splitlines()]
    assert lines == [
        "1 of 3 steps are published already",
        "start  iter_1.train",
        "done   iter_1.train in 2.5 s (2 of 3)",
        "stopped after iteration 1: why",
    ]


def test_a_terminal_gets_a_bar_per_running_step():
    out = console(True)
    with live_display(out, 3) as display:
        assert isinstance(display, Bars)
        display.started(Named("iter_1.train"))
        display.advanced(Named("iter_1.train"), {"done": 3, "total": 20, "unit": "steps", "note": "loss [37]"})
        display._progress.refresh()
        display.finished(Named("iter_1.train"), 2.5)
        display.skipped(Named("iter_1.export"))
        display.left_out(Named("iter_2.train"), "stopped after iteration 1: [why]")
    shown = out.file.getvalue()
    assert "3/20" in shown
    assert "loss [37]" in shown  # a stage's note is text, not markup
    assert "3/3" in shown
    assert "stopped after iteration 1: [why]" in shown
    assert "iter_1.train" in shown
