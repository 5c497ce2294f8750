"""Several runs in one figure: a line, or a bar, per run."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.facts.comparison import Comparison, sweep
from nemo_sspo.report.facts.evaluation import OPPONENTS
from nemo_sspo.report.facts.run_facts import RunFacts
from nemo_sspo.report.facts.training import full_batches
from nemo_sspo.report.figures.base import error_bars, figure, half_line, late_mean, rounded
from nemo_sspo.report.figures.evaluation import (
    AT_EQUAL_LENGTH,
    OPPONENT_NAMES,
    against_base,
    best_of_n_lines,
    by_iteration,
)
from nemo_sspo.report.figures.wins import win_lines
from nemo_sspo.report.theme import LIGHT, series


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
    labels = [f"{comparison.labels[a.run]}, iteration {a.iteration}" for a in comparison.advantages]
    differences = [advantage.difference for advantage in comparison.advantages]
    bars = error_bars(differences)
    trace = go.Scatter(
        y=labels,
        x=[difference.mean for difference in differences],
        error_x=bars | {"color": LIGHT["ink"]},
        mode="markers",
        marker={"size": 9, "color": [series(a.run) for a in comparison.advantages]},
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    baseline = comparison.labels[0]
    return Plot(
        key="advantage",
        title=f"Difference to {baseline} in win rate against the base",
        figure=figure(
            [trace],
            shapes=[zero | {"line": {"color": LIGHT["muted"], "width": 1, "dash": "dot"}}],
            xaxis={"title": {"text": f"win rate minus that of {baseline}"}},
            yaxis={"autorange": "reversed", "automargin": True},
            margin={"l": 8, "r": 16, "t": 16, "b": 44},
        ),
        description="Paired differences: "
        + "; ".join(
            f"{label} {a.difference.mean:+.3f} [{a.difference.low:+.3f}, {a.difference.high:+.3f}]"
            for label, a in zip(labels, comparison.advantages, strict=True)
        )
        + ".",
        table=Table(
            ("run", "iteration", "prompts", "difference", "low", "high", "told apart"),
            [
                (
                    comparison.labels[a.run],
                    a.iteration,
                    a.prompts,
                    *(rounded(x) for x in (a.difference.mean, a.difference.low, a.difference.high)),
                    ("yes" if a.is_clear else "no") if a.is_fair else "unequal budgets",
                )
                for a in comparison.advantages
            ],
        ),
        note="Bars: 95 % intervals of the paired bootstrap over the held-out prompts that both evaluated. One seed "
        "each: they say nothing about other seeds.",
        height=110 + 36 * len(labels),
    )


def sweep_plot(comparison: Comparison) -> Plot | None:
    """Win rate over the one number in which the runs differ (a sweep of lambda, say); None where there is none."""
    found = sweep(comparison)
    if found is None:
        return None
    key, points = found
    values, wins = [value for value, _ in points], [win for _, win in points]
    spread = min(values) > 0 and max(values) > 20 * min(values)
    trace = go.Scatter(
        x=values,
        y=[win.mean for win in wins],
        error_y=error_bars(wins),
        mode="lines+markers",
        marker={"size": 9},
        line={"color": series(0), "width": 2},
        text=[str(win) for win in wins],
        hovertemplate=f"{key} = %{{x}}: %{{text}}<extra></extra>",
    )
    return Plot(
        key="sweep",
        title=f"Win rate against the base over {key}",
        figure=figure(
            [trace],
            xaxis={"title": {"text": key}, "type": "log" if spread else "linear"},
            yaxis={"title": {"text": "win rate"}},
            shapes=[half_line()],
        ),
        description="; ".join(f"{key} = {value:g}: {win}" for value, win in points) + ".",
        table=Table(
            (key, "win rate", "low", "high"),
            [(value, rounded(win.mean), rounded(win.low), rounded(win.high)) for value, win in points],
        ),
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
    stages = list(dict.fromkeys(cost.stage for run in comparison.runs for cost in run.costs))
    seconds = [
        [sum(cost.seconds for cost in run.costs if cost.stage == stage) for run in comparison.runs] for stage in stages
    ]
    traces = [
        go.Bar(
            orientation="h",
            y=comparison.labels,
            x=[rounded(value) for value in values],
            name=stage,
            marker={"color": series(position), "pattern": {"shape": ("", "/", ".")[position // 6 % 3]}},
            hovertemplate=f"{stage}: %{{x:.1f}} s<extra></extra>",
        )
        for position, (stage, values) in enumerate(zip(stages, seconds, strict=True))
    ]
    totals = [sum(column) for column in zip(*seconds, strict=True)]
    said = (f"{label} {total:,.0f} seconds" for label, total in zip(comparison.labels, totals, strict=True))
    rows = [(stage, *(rounded(value, 5) for value in values)) for stage, values in zip(stages, seconds, strict=True)]
    return Plot(
        key="compare-seconds",
        title="Seconds of work by stage",
        figure=figure(
            traces,
            barmode="stack",
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
            xaxis={"title": {"text": "seconds"}},
            yaxis={"autorange": "reversed", "automargin": True},
            margin={"l": 8, "r": 16, "t": 16, "b": 44},
        ),
        description=f"Seconds of work over all stages: {', '.join(said)}.",
        table=Table(("stage", *comparison.labels), [*rows, ("all", *(rounded(total, 5) for total in totals))]),
        note="Without the start of processes; shards added up.",
        height=200 + 44 * len(comparison.labels),
    )


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
