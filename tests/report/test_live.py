"""What is shown while a run goes on."""

import io
import itertools
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
        "published already: 1 of 3 steps",
        "start  iter_1.train",
        "done   iter_1.train in 2.5 s (2 of 3)",
        "stopped after iteration 1: why",
    ]


def test_a_pipe_is_told_what_runs_where_nothing_else_is_said(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("nemo_sspo.report.live.time.monotonic", lambda: clock[0])
    out = console(False)
    names = [Named(f"iter_1.rollout.{n}") for n in range(4)]

    def wait(seconds, state):
        for _ in range(int(seconds)):
            clock[0] += 1
            for name in names:
                display.advanced(name, state)

    with live_display(out, 5) as display:
        for name in names:
            display.started(name)
        wait(45, {})
        wait(20, {"done": 1200, "total": 6400, "unit": "prompts", "note": "2 waiting"})
        display.finished(names.pop(), 65.0)
        wait(1000, {"done": 3, "total": 4, "unit": "prompts", "note": ""})
    lines = out.file.getvalue().splitlines()
    assert any("iter_1.rollout.0 loads what it needs, 20 s so far;" in line for line in lines)
    assert any(
        "iter_1.rollout.0 1,200 of 6,400 prompts, 2 waiting" in line and line.endswith("and 1 more") for line in lines
    )
    assert lines[-1].endswith("iter_1.rollout.2 3 of 4 prompts")
    moments = [float(line[1:].partition(" s]")[0]) for line in lines]
    gaps = [(later, later - earlier) for earlier, later in itertools.pairwise(moments)]
    assert max(gap for later, gap in gaps if later <= 600) <= 21
    assert min(gap for later, gap in gaps if later > 660) >= 300


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
