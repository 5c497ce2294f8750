"""What is told of an iteration, in the summary's table and on the page's cards alike."""

from nemo_sspo.report.facts.iteration import IterationFacts


def iteration_rows(each: IterationFacts) -> dict[str, str]:
    """Values by label; what is not known yet is left out."""
    rows: dict[str, str] = {}
    if (sample := each.sampled) is not None:
        rows["prompts, responses"] = f"{sample.prompts:,}, {sample.responses:,}"
        rows["tokens of a response"] = f"{sample.tokens:.1f}"
    if (pairs := each.pairs) is not None:
        rows["pairs"] = f"{pairs.pairs:,}"
        rows["margin before → after the gate"] = f"{pairs.margin_before:.4f} → {pairs.margin_after:.4f}"
        rows["similarity of a pair"] = f"{pairs.similarity:.3f}"
        if pairs.moved_share is not None:
            rows["targets moved by > 0.1"] = f"{pairs.moved_share:.0%}"
    if each.dropped is not None:
        rows["prompts without a pair"] = _dropped(each.dropped)
    if each.reference is not None and each.reference.largest_difference is not None:
        rows["reference, rollout's off by (nats)"] = (
            f"{each.reference.source} ({each.reference.largest_difference:.2g})"
        )
    if (curve := each.curve) is not None:
        rows["optimizer steps"] = f"{len(curve.steps)}" + ("" if curve.finished else " so far")
        rows["loss first → last"] = f"{curve.first('loss'):.4g} → {curve.last('loss'):.4g}"
        ends = curve.last("d_chosen"), curve.last("d_rejected")
        if None not in ends:
            rows["d_w, d_l at the end"] = f"{ends[0]:+.2f}, {ends[1]:+.2f}"
    if (identity := each.identity) is not None:
        rows["preference loss at step 1"] = f"{identity.measured:.7g}"
        if identity.closed_form is not None:
            rows["its closed form"] = f"{identity.closed_form:.7g}"
            rows["relative difference"] = f"{identity.relative_difference:.1e}"
    if (selection := each.selection) is not None:
        steps = [candidate.step for candidate in selection.candidates]
        rows["checkpoint chosen"] = f"step {steps[selection.chosen]} of {steps[-1]}, of {len(steps)}"
        rows["its win rate when chosen"] = str(selection.by_criterion(selection.chosen))
    if (evaluated := each.evaluated) is not None:
        rows |= {f"win rate vs {name}": str(win) for name, win in evaluated.wins.items()}
        if evaluated.at_equal_length is not None:
            rows["vs base at equal length"] = str(evaluated.at_equal_length)
        if (best := evaluated.best_of_n) is not None:
            rows[f"best of {best.n} vs base"] = str(best.win)
        if {"new", "base"} <= evaluated.tokens.keys():
            rows["held-out tokens, base → new"] = f"{evaluated.tokens['base']:.1f} → {evaluated.tokens['new']:.1f}"
    return rows


def _dropped(reasons: dict[str, int]) -> str:
    if not reasons:
        return "0"
    named = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items())
    return named if len(reasons) == 1 else f"{sum(reasons.values()):,} ({named})"
