"""Several runs in one figure: a line, or a bar, per run."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot
from nemo_sspo.report.facts.comparison import Comparison, sweep
from nemo_sspo.report.facts.evaluation import OPPONENTS
from nemo_sspo.report.facts.run_facts import RunFacts
from nemo_sspo.report.facts.training import full_batches
from nemo_sspo.report.figures.base import HALF, late_mean, log_axis, scatter
from nemo_sspo.report.figures.evaluation import (
    AT_EQUAL_LENGTH,
    OPPONENT_NAMES,
    against_base,
    best_of_n_lines,
    by_iteration,
)
from nemo_sspo.report.figures.wins import win_lines
from nemo_sspo.report.frame import Frame, drawn
from nemo_sspo.report.theme import series

_UNFAIR = "unequal budgets"


def win_rate_plots(comparison: Comparison) -> list[Plot]:
    """Win rates with intervals, one plot per opponent and measure."""
    runs = list(zip(comparison.labels, comparison.runs, strict=True))
    plots = [
        win_lines(
            f"compare-win-{opponent}",
            f"Win rate {OPPONENT_NAMES[opponent]}",
            "run",
            {
                label: {e.iteration: e.wins[opponent] for e in run.evaluations if opponent in e.wins}
                for label, run in runs
            },
        )
        for opponent in OPPONENTS
    ]
    at_equal_length = {label: against_base(run.evaluations)[AT_EQUAL_LENGTH] for label, run in runs}
    plots.append(win_lines("compare-win-equal-length", "Against the base at equal length", "run", at_equal_length))
    best_of_n = {
        f"{label}, {n}": points for label, run in runs for n, points in best_of_n_lines(run.evaluations).items()
    }
    plots.append(win_lines("compare-best-of-n", "Best of n against the base", "run", best_of_n))
    return [plot for plot in plots if plot is not None]


def advantage_plot(comparison: Comparison) -> Plot:
    """Paired differences to the baseline with their intervals."""
    labels, advantages, baseline = comparison.labels, comparison.advantages, comparison.labels[0]
    frame = Frame(
        ("run", "iteration", "prompts", "difference", "told apart"),
        [
            (labels[a.run], a.iteration, a.prompts, a.difference, ("no", "yes")[a.is_clear] if a.is_fair else _UNFAIR)
            for a in advantages
        ],
    )
    traces = [
        scatter(
            own["difference"],
            [_at(label, iteration) for iteration in own["iteration"]],
            series(position),
            mode="markers",
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
        for position, label in enumerate(labels)
        if (own := frame.where("run", label)).rows
    ]
    said = "; ".join(
        f"{_at(label, iteration)} {won.mean:+.3f} [{won.low:+.3f}, {won.high:+.3f}]"
        for label, iteration, _, won, _ in frame.rows
    )
    return Plot(
        key="advantage",
        title=f"Difference to {baseline} in win rate against the base",
        frame=frame,
        traces=traces,
        description=f"Paired differences: {said}.",
        layout={
            "shapes": [{"x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}],
            "xaxis_title": f"win rate minus that of {baseline}",
            "yaxis": {"title": "run and iteration", "autorange": "reversed"},
            "showlegend": False,
        },
        note="Bars: 95 % intervals of the paired bootstrap over the held-out prompts that both evaluated. One seed "
        "each: they say nothing about other seeds.",
        height=110 + 36 * len(advantages),
    )


def sweep_plot(comparison: Comparison) -> Plot | None:
    """Win rate over the one number in which the runs differ (a sweep of lambda, say); None where there is none."""
    found = sweep(comparison)
    if found is None:
        return None
    key, points = found
    frame = Frame((key, "win rate"), points)
    low, high = min(frame[key]), max(frame[key])
    hover = f"{key} = %{{x}}: %{{text}}<extra></extra>"
    return Plot(
        key="sweep",
        title=f"Win rate against the base over {key}",
        frame=frame,
        traces=[scatter(frame[key], frame["win rate"], series(0), mode="lines+markers", hovertemplate=hover)],
        description="; ".join(f"{key} = {value:g}: {win}" for value, win in points) + ".",
        layout={
            "xaxis": {"title": key, **(log_axis(frame[key]) if low > 0 and high > 20 * low else {})},
            "yaxis_title": "win rate",
            "shapes": [HALF],
        },
        note="Of each run's last evaluated iteration. Bars: bootstrap intervals over the held-out prompts.",
    )


def fact_plots(comparison: Comparison) -> list[Plot]:
    """Margins, lengths, signs of collapse and losses by iteration, one line per run."""
    plots = [
        by_iteration(f"compare-{key}", title, unit, _lines(comparison, points), note)
        for key, title, unit, note, points in _FACTS
    ]
    return [plot for plot in plots if plot is not None]


def seconds_plot(comparison: Comparison) -> Plot:
    """Seconds of work of every stage, stacked, one bar per run."""
    labels, costs = comparison.labels, [run.costs for run in comparison.runs]
    rows = [
        (stage, *(sum(cost.seconds for cost in own if cost.stage == stage) for own in costs))
        for stage in dict.fromkeys(cost.stage for own in costs for cost in own)
    ]
    totals = [sum(cost.seconds for cost in own) for own in costs]
    traces = [
        go.Bar(
            orientation="h",
            y=labels,
            x=[drawn(value) for value in seconds],
            name=stage,
            meta=series(position),
            marker_pattern_shape=("", "/", ".")[position // 6 % 3],
            hovertemplate=f"{stage}: %{{x:.1f}} s<extra></extra>",
        )
        for position, (stage, *seconds) in enumerate(rows)
    ]
    said = ", ".join(f"{label} {total:,.0f} seconds" for label, total in zip(labels, totals, strict=True))
    return Plot(
        key="compare-seconds",
        title="Seconds of work by stage",
        frame=Frame(("stage", *labels), [*rows, ("all", *totals)]),
        traces=traces,
        description=f"Seconds of work over all stages: {said}.",
        layout={
            "barmode": "stack",
            "legend_traceorder": "normal",
            "xaxis_title": "seconds",
            "yaxis": {"title": "run", "autorange": "reversed"},
        },
        note="Without the start of processes; shards added up.",
        height=200 + 44 * len(labels),
    )


def _at(label: str, iteration: int) -> str:
    return f"{label}, iteration {iteration}"


def _lines(
    comparison: Comparison, points: Callable[[RunFacts], Mapping[int, float | None]]
) -> dict[str, Mapping[int, float | None]]:
    return {label: points(run) for label, run in zip(comparison.labels, comparison.runs, strict=True)}


def _held_out_tokens(run: RunFacts) -> dict[int, float | None]:
    return {e.iteration: e.tokens.get("new") for e in run.evaluations}


def _late(name: str) -> Callable[[RunFacts], dict[int, float | None]]:
    return lambda run: {c.iteration: late_mean(full_batches(c, name)) for c in run.curves if c.finished}


_SECOND_HALF = "mean over the second half of the steps"
_FACTS: Sequence[tuple[str, str, str, str, Callable[[RunFacts], Mapping[int, float | None]]]] = (
    (
        "before",
        "Margin before the gate",
        "margin",
        "",
        lambda run: {s.iteration: s.margin_before for s in run.supervisions},
    ),
    (
        "after",
        "Margin after the gate",
        "margin",
        "",
        lambda run: {s.iteration: s.margin_after for s in run.supervisions},
    ),
    (
        "similarity",
        "Similarity of a pair",
        "similarity",
        "",
        lambda run: {s.iteration: s.similarity for s in run.supervisions},
    ),
    ("tokens", "Length of held-out responses", "tokens", "", _held_out_tokens),
    (
        "distinct",
        "Distinct responses",
        "share",
        "of the responses to a held-out prompt",
        lambda run: {e.iteration: e.distinct.get("new") for e in run.evaluations},
    ),
    ("cosine", "Cosine of a pair's states", "cosine", _SECOND_HALF, _late("pair_cosine")),
    ("rank", "Effective rank of the states", "rank", _SECOND_HALF, _late("effective_rank")),
    ("d-chosen", "Log-ratio d_w of the chosen response", "nats", _SECOND_HALF, _late("d_chosen")),
    ("d-rejected", "Log-ratio d_l of the rejected response", "nats", _SECOND_HALF, _late("d_rejected")),
)
