"""Whether a judge tells different responses apart at all: where both orders have one logit, the pair is a tie."""

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

from nemo_sspo.config.oracles import Oracle
from nemo_sspo.oracle.protocol import Row

ENOUGH = 100
"""Comparisons of which no judge with an opinion calls every one a tie."""


def count_ties(rows: Sequence[Row], logits_R: NDArray) -> dict[str, int]:
    """Distinct pairs of different responses that were shown in both orders, and how many of them tie.

    Returns:
        ``compared``; ``tied``: the logits of both orders are equal; ``tied_first`` and ``tied_second``: and favour the
        response shown first, or second, whichever it is.
    """
    logits = {row[:3]: float(logit) for row, logit in zip(rows, logits_R, strict=True) if row.first != row.second}
    orders = [
        (logit, logits[prompt, second, first])
        for (prompt, first, second), logit in logits.items()
        if first < second and (prompt, second, first) in logits
    ]
    tied = [logit for logit, other in orders if logit == other]
    return {
        "compared": len(orders),
        "tied": len(tied),
        "tied_first": sum(logit > 0 for logit in tied),
        "tied_second": sum(logit < 0 for logit in tied),
    }


def all_tie(oracle: Oracle, counted: Mapping[str, int], least: int = ENOUGH) -> str | None:
    """What to say of a judge all of whose comparisons are ties; None of others, and of fewer than `least` comparisons.

    Args:
        counted: the facts of its judgements, `count_ties` among them, summed.
    """
    compared, tied = counted.get("compared", 0), counted.get("tied", 0)
    if not compared or compared < least or tied < compared:
        return None
    judge = f"oracle.model={oracle.model}" if oracle.kind == "llm_judge" else f"oracle={oracle.kind}"
    first, second = counted.get("tied_first", 0), counted.get("tied_second", 0)
    advice = "give another judge, or another question as oracle.template"
    if counted.get("unparsed") and counted["unparsed"] == counted.get("answers"):
        why = f"none of its {counted['answers']} answers names a response"
        advice = (
            "oracle.unparsable=error shows one; oracle.template asks otherwise, oracle.max_answer_tokens allows more"
        )
    elif first == tied:
        why = "it prefers the response shown first, whichever that is"
    elif second == tied:
        why = "it prefers the response shown second, whichever that is"
    else:
        why = f"in {first} it prefers the one shown first, in {second} the second, in {tied - first - second} neither"
    return f"{judge}: a tie in each of {compared} comparisons of different responses ({why}); {advice}"
