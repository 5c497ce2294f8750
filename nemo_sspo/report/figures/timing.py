"""When the steps ran, and what the stages cost."""

from collections.abc import Sequence
from typing import get_args

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.timing import Running, Span, StageCost, overlap, stage_rank
from nemo_sspo.report.frame import Frame, drawn
from nemo_sspo.report.theme import series
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.stage import Group

_ROW_PIXELS = 26
_GROUPS: tuple[Group, ...] = get_args(Group)


def timeline_plot(spans: Sequence[Span]) -> Plot:
    """A row per stage and iteration; shards of a stage lie on one row."""
    begun, ended = min(span.started for span in spans), max(span.ended for span in spans)
    rows = list(dict.fromkeys(_row(span) for span in sorted(spans, key=_row_order)))
    frame = Frame(
        ("step", "stage", "work", "began (s)", "seconds"),
        [(s.step_id, _row(s), _group(s.stage), (s.started - begun).total_seconds(), _seconds(s)) for s in spans],
    )
    traces = [
        go.Bar(
            orientation="h",
            y=own["stage"],
            base=[drawn(began) for began in own["began (s)"]],
            x=[drawn(seconds) for seconds in own["seconds"]],
            name=group,
            meta=series(position),
            opacity=0.85,
            text=own["step"],
            textposition="none",
            hovertemplate="%{text}: %{x:.1f} s, from %{base:.1f} s<extra></extra>",
        )
        for position, group in enumerate(_GROUPS)
        if (own := frame.where("work", group)).rows
    ]
    longest = max(spans, key=_seconds)
    return Plot(
        key="timeline",
        title="Timeline",
        frame=frame,
        traces=traces,
        description=(
            f"{len(spans)} steps over {(ended - begun).total_seconds():.0f} seconds from the first start to the last "
            f"end; the longest was {longest.step_id} with {_seconds(longest):.1f} seconds.{_overlap(spans)}"
        ),
        layout={
            "barmode": "overlay",
            "bargap": 0.3,
            "xaxis": {"title": "seconds since the first step began", "rangemode": "tozero"},
            "yaxis": {"categoryorder": "array", "categoryarray": rows[::-1], "ticks": "", "title": "stage"},
        },
        note="A bar is a step's work, without the start of its process. Gaps: starts, waits, or a stopped run.",
        height=110 + _ROW_PIXELS * len(rows),
    )


def _overlap(spans: Sequence[Span]) -> str:
    """A sentence; none where nothing has been scored yet."""
    found = overlap(spans)
    if not found.judging:
        return ""
    return (
        f" Of the {found.judging:.1f} seconds in which responses were scored or embedded, others were sampled "
        f"during {found.beside:.1f}."
    )


def running_table(running: Sequence[Running]) -> Table:
    """What the steps under way last reported."""
    rows = [
        (each.step_id, f"{each.done:,} of {each.total:,} {each.unit}", each.note, f"{each.age:,.0f} s ago")
        for each in running
    ]
    return Table(("step", "progress", "", "reported"), rows, title="Steps under way")


def cost_table(costs: Sequence[StageCost]) -> Table:
    """Seconds, GPU-hours, rates and memory of every stage (S-SPPO Table 7)."""
    rows = [
        (
            cost.iteration or "prep.",
            cost.stage,
            cost.shards,
            f"{cost.seconds:,.1f}",
            f"{cost.gpu_hours:.3f}" if cost.gpu_hours else "-",
            f"{cost.loads} in {cost.loading_seconds:,.1f} s" if cost.loads else "-",
            f"{cost.rate:,.0f} {cost.rate_unit}" if cost.rate is not None else "-",
            f"{cost.peak_memory_gib:.2f} GiB" if cost.peak_memory_gib is not None else "-",
            f"{cost.mfu:.1%}" if cost.mfu is not None else "-",
        )
        for cost in costs
    ]
    return Table(
        ("iteration", "stage", "tasks", "seconds", "GPU-hours", "model loads", "rate of a task", "peak memory", "MFU"),
        rows,
        title="Efficiency",
        note=(
            "Seconds are the work of all shards added up, without the start of their processes; GPU-hours are these "
            "seconds times the GPUs that a task occupied (none on a machine without GPUs). Memory: of training "
            "the most that one rank held, on its GPU where it has one; else main memory of the largest task. A process "
            "loads its model once, however many shards it takes, imports included; the rate is without it."
        ),
    )


def iteration_cost_table(costs: Sequence[StageCost]) -> Table:
    """Sums per iteration."""
    iterations = sorted({cost.iteration for cost in costs})
    rows = []
    for iteration in iterations:
        own = [cost for cost in costs if cost.iteration == iteration]
        seconds, hours = sum(cost.seconds for cost in own), sum(cost.gpu_hours for cost in own)
        rows.append((iteration or "prep.", drawn(seconds), f"{hours:.3f}" if hours else "-"))
    return Table(("iteration", "seconds of work", "GPU-hours"), rows, title="Per iteration")


def _row(span: Span) -> str:
    return span.stage if span.iteration == 0 else f"{span.iteration} · {span.stage}"


def _row_order(span: Span) -> tuple[int, int]:
    return span.iteration, stage_rank(span.stage)


def _group(stage: str) -> Group:
    return STAGES[stage].group if stage in STAGES else _GROUPS[-1]


def _seconds(span: Span) -> float:
    return round((span.ended - span.started).total_seconds(), 2)
