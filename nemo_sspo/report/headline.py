"""The numbers at the top of a run's page."""

from collections.abc import Sequence

from nemo_sspo.artifacts.selection import EarlyStop, policy_name
from nemo_sspo.report.blocks import Tile
from nemo_sspo.report.facts.evaluation import Evaluated
from nemo_sspo.report.facts.run_facts import RunFacts


def headline(facts: RunFacts) -> list[Tile]:
    """Win rates, step-1 identity, length and time; what is not known yet says so."""
    return [
        _win_tile(facts.evaluations, "base", "Win rate against the base"),
        _win_tile(facts.evaluations, "previous", "Win rate against the previous iteration"),
        _identity_tile(facts),
        _length_tile(facts.evaluations),
        _time_tile(facts),
        *([_stop_tile(facts.stopped)] if facts.stopped else []),
    ]


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _win_tile(evaluations: Sequence[Evaluated], opponent: str, label: str) -> Tile:
    if not evaluations or opponent not in evaluations[-1].wins:
        return Tile(label, "-", "not evaluated yet")
    last = evaluations[-1]
    win = last.wins[opponent]
    state = "warn" if win.includes_half else "good" if win.mean > 0.5 else "bad"
    equal = last.at_equal_length if opponent == "base" else None
    controlled = "" if equal is None else f"; {equal.mean:.3f} at equal length"
    return Tile(
        label, f"{win.mean:.3f}", f"[{win.low:.3f}, {win.high:.3f}], iteration {last.iteration}{controlled}", state
    )


def _identity_tile(facts: RunFacts) -> Tile:
    differences = [d for each in facts.identities if (d := each.relative_difference) is not None]
    if not differences:
        return Tile("Step-1 identity", "-", "no iteration trained yet")
    held = all(each.holds is not False for each in facts.identities)
    return Tile(
        "Step-1 identity",
        "holds" if held else "broken",
        f"largest relative difference {max(differences):.1g}",
        "good" if held else "bad",
    )


def _length_tile(evaluations: Sequence[Evaluated]) -> Tile:
    if not evaluations or not {"new", "base"} <= evaluations[-1].tokens.keys():
        return Tile("Length of a response", "-", "not evaluated yet")
    new, base = (evaluations[-1].tokens[name] for name in ("new", "base"))
    change = f"{new / base - 1:+.0%} against the base" if base else ""
    return Tile("Length of a response", f"{new:.1f}", f"tokens, {change}")


def _stop_tile(stopped: EarlyStop) -> Tile:
    return Tile("Stopped early", f"iteration {stopped.iteration}", f"result: {policy_name(stopped.result)}", "warn")


def _time_tile(facts: RunFacts) -> Tile:
    if facts.wall_seconds is None:
        return Tile("Time", "-", "no step is published yet")
    hours = sum(cost.gpu_hours for cost in facts.costs)
    return Tile("Time", duration(facts.wall_seconds), f"{hours:.2f} GPU-hours" if hours else "no GPU")
