"""What S-SPPO says, as comparisons that can fail; written before the study was run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nemo_sspo.lab.language.comparison import LEVEL, Paired, holm, paired
from nemo_sspo.lab.language.plan import DIALS, MAIN_DIAL, TRUE
from nemo_sspo.lab.language.results import Results

Verdict = Literal["held", "not shown", "contradicted"]


@dataclass(frozen=True)
class Hypothesis:
    """That a measure is greater (or smaller) with one arm than with another, at the last iteration."""

    claim: str
    source: str
    first: str
    second: str
    measure: str
    direction: Literal[1, -1]
    dial: float = MAIN_DIAL


@dataclass(frozen=True)
class Outcome:
    """A hypothesis beside what the runs say. ``held`` and ``contradicted`` need an adjusted p below 5 %."""

    hypothesis: Hypothesis
    paired: Paired
    adjusted_p: float

    @property
    def verdict(self) -> Verdict:
        """What may be said at the family-wise level."""
        if self.adjusted_p >= LEVEL:
            return "not shown"
        return "held" if self.paired.difference.mean * self.hypothesis.direction > 0 else "contradicted"


_TABLE = "S-SPPO Table 5"
_WORTH = "true_win_rate"

HYPOTHESES = (
    *(
        Hypothesis(f"{claim}, dial {dial:g}", _TABLE, first, second, _WORTH, 1, dial)
        for dial in DIALS
        for claim, first, second in (
            ("both calibrations win more than neither", "s-sppo", "sppo"),
            ("the gate alone wins more than neither", "gate", "sppo"),
            ("repulsion alone wins more than neither", "repulsion", "sppo"),
            ("both win more than the gate alone", "s-sppo", "gate"),
            ("both win more than repulsion alone", "s-sppo", "repulsion"),
        )
    ),
    Hypothesis("the gate lowers the gradient's variance", "S-SPPO section 1", "gate", "sppo", "gradient_variance", -1),
    Hypothesis("and that over its squared mean", "ours", "gate", "sppo", "gradient_noise", -1),
    Hypothesis("the gate turns the gradient to the true one", "ours", "gate", "sppo", "alignment", 1),
    Hypothesis("the gate keeps wordings apart", "S-SPPO impact statement", "gate", "sppo", "wording_entropy", 1),
    Hypothesis("so does repulsion", "S-SPPO impact statement", "repulsion", "sppo", "wording_entropy", 1),
    Hypothesis("repulsion keeps hidden states apart", "S-SPPO section 3.2", "repulsion", "sppo", "hidden_cosine", -1),
    Hypothesis("the gate lets chosen responses fall less", "ours", "gate", "sppo", "d_chosen", 1),
    Hypothesis("the gate is more than a smaller eta", "ours", "gate", "sppo, smaller eta", _WORTH, 1),
    Hypothesis("at equal mean target the gate wins more", "ours", "gate, larger eta", "sppo", _WORTH, 1),
    Hypothesis("the gate needs the right similarities", "ours", "gate", "gate, permuted", _WORTH, 1),
    Hypothesis("both win more than DPO", "S-SPPO Table 1", "s-sppo", "dpo", _WORTH, 1),
    Hypothesis("both win more than IPO", "S-SPPO Table 1", "s-sppo", "ipo", _WORTH, 1),
    Hypothesis("both win more than DPO with latent ties", "ours", "s-sppo", "ties", _WORTH, 1),
    Hypothesis("both win no less under a true judge", "ours", "s-sppo", "sppo", _WORTH, 1, TRUE),
)


def outcomes(results: Results) -> list[Outcome]:
    """Every hypothesis that the runs can answer; p-values are corrected over these."""
    found = list(_compared(results))
    adjusted = holm([compared.p for _, compared in found])
    return [Outcome(each, compared, p) for (each, compared), p in zip(found, adjusted, strict=True)]


def _compared(results: Results) -> Iterator[tuple[Hypothesis, Paired]]:
    for each in HYPOTHESES:
        values = [results.values(arm, each.dial, each.measure) for arm in (each.first, each.second)]
        if (compared := paired(*values)) is not None:
            yield each, compared
