"""What `diagnose` found: the oracle's weaknesses, its calibration, and the diversity of the responses."""

from collections.abc import Callable, Mapping

from nemo_sspo.artifacts.diagnostics import Calibration, Collapse, Diagnostics
from nemo_sspo.report.blocks import Plot, Table
from nemo_sspo.report.figures.base import scatter
from nemo_sspo.report.figures.evaluation import by_iteration
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.theme import series

_SIDE_BY_SIDE: tuple[tuple[str, str, str, str, Mapping[str, Callable[[Collapse], float | None]]], ...] = (
    (
        "ngrams",
        "Distinct n-grams",
        "share",
        "of all n-grams of a prompt's responses; less is more alike",
        {"unigrams": lambda c: c.distinct_1, "bigrams": lambda c: c.distinct_2},
    ),
    (
        "self-bleu",
        "Self-BLEU",
        "BLEU-4",
        "of each response against the others; 1 where all are equal",
        {"self-BLEU": lambda c: c.self_bleu},
    ),
    (
        "near",
        "Similarity of responses",
        "share, cosine",
        "near-duplicates: response pairs with a similarity of at least 0.95",
        {"near-duplicates": lambda c: c.near_duplicate_share, "mean similarity": lambda c: c.mean_similarity},
    ),
    (
        "embedding-rank",
        "Effective rank of the embeddings",
        "rank",
        "of all response embeddings of the iteration",
        {"all responses": lambda c: c.effective_rank},
    ),
    (
        "prompt-rank",
        "Effective rank per prompt",
        "rank",
        "of a prompt's K response embeddings: 1 where all say the same",
        {"mean over prompts": lambda c: c.prompt_effective_rank},
    ),
    (
        "length-spread",
        "Spread of lengths",
        "tokens",
        "percentiles of a training response's length",
        {f"{p} %": lambda c, p=p: c.token_percentiles.get(p) for p in ("5", "50", "95")},  # type: ignore[misc]
    ),
)


def diversity_plots(diagnosed: Mapping[int, Diagnostics]) -> list[Plot]:
    """Signs of collapse over the iterations, of the responses that were trained on."""
    plots = []
    for key, title, unit, note, lines in _SIDE_BY_SIDE:
        points = {name: {i: value(each.collapse) for i, each in diagnosed.items()} for name, value in lines.items()}
        plots.append(by_iteration(f"diversity-{key}", title, unit, points, note))
    return [plot for plot in plots if plot is not None]


def oracle_table(diagnosed: Mapping[int, Diagnostics]) -> Table:
    """Order, cycles, length and duplicates."""
    headings = (
        "iteration",
        "order gap",
        "order lean",
        "order flips",
        "cycles",
        "length correlation",
        "longer wins",
        "exact duplicates",
        "near-duplicates",
    )
    rows = []
    for iteration, each in diagnosed.items():
        oracle, duplicates = each.oracle, each.duplicates
        rows.append(
            (
                iteration,
                f"{oracle.order_gap:.3f}",
                f"{oracle.order_lean:+.3f}",
                _percent(oracle.order_flip_share),
                _percent(oracle.intransitive_share),
                "-" if oracle.length_correlation is None else f"{oracle.length_correlation:+.3f}",
                _percent(oracle.longer_wins_share),
                _percent(duplicates.exact_share),
                _percent(duplicates.near_share),
            )
        )
    return Table(
        headings,
        rows,
        title="The oracle on these responses",
        note=(
            "Order gap: mean |l_ij + l_ji| in logits, 0 for an oracle that is blind to order; lean: mean "
            "(l_ij + l_ji)/2, positive where the response shown first is preferred; flips: pairs whose winner changes "
            "with the order. Cycles: triples on which it goes in a circle. Length: correlation of the preference with "
            "the difference in tokens, and how often the longer response wins."
        ),
    )


def calibration_plot(facts: Calibration) -> Plot:
    """Reliability: how often the oracle is right at each confidence."""
    frame = Frame(
        ("confidence", "pairs", "mean confidence", "share right"),
        [(f"{b.low:.2f} to {b.high:.2f}", b.count, b.mean_confidence, b.accuracy) for b in facts.bins],
    )
    known = frame.known("mean confidence").known("share right")
    trace = scatter(
        known["mean confidence"],
        known["share right"],
        series(0),
        mode="lines+markers",
        text=[f"{count:,} pairs" for count in known["pairs"]],
        hovertemplate="confidence %{x:.2f}, right %{y:.2f} (%{text})<extra></extra>",
    )
    return Plot(
        key="calibration",
        title="Calibration of the oracle",
        frame=frame,
        traces=[trace],
        description=(
            f"Reliability on {facts.pairs:,} labelled pairs: expected calibration error "
            f"{facts.expected_calibration_error:.3f}, accuracy {facts.accuracy:.3f}, Brier score "
            f"{facts.brier_score:.3f}."
        ),
        layout={
            "shapes": [{"x0": 0.5, "x1": 1, "y0": 0.5, "y1": 1}],
            "xaxis_title": "confidence",
            "yaxis": {"title": "share right", "range": [0, 1.05]},
        },
        note="Dotted: as often right as it is confident.",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
