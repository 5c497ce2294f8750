"""Every gate at its defaults in every form: the grid that the study goes through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import GATES, GateForm
from nemo_sspo.objective.gates import GATE_WEIGHTS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GateCase:
    """A gate in one form."""

    gate: str
    form: GateForm
    weight: Callable[[Array], Array]

    @property
    def name(self) -> str:
        """As a table shows it."""
        return "none" if self.gate == "none" else f"{self.gate}, {self.form}"


def gate_cases() -> list[GateCase]:
    """`none` once, then every gate in the three forms."""
    none, *others = GATES
    forms = get_args(GateForm)
    return [
        GateCase(none.kind, "pairwise", bind(none, GATE_WEIGHTS)),
        *(GateCase(gate.kind, form, bind(gate, GATE_WEIGHTS)) for gate in others for form in forms),
    ]
