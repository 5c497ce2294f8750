"""A variant binds to the function of its name; a custom one to its import path."""

import numpy as np
import pytest

from nemo_sspo.config.binding import bind
from nemo_sspo.config.variants import CustomGate, PowerGate
from nemo_sspo.errors import UserError
from nemo_sspo.objective.gates import GATE_WEIGHTS


def test_parameters_of_the_variant_reach_the_function():
    weight = bind(PowerGate(exponent=3.0), GATE_WEIGHTS, exclude={"form"})
    assert weight(np.float64(0.5)) == pytest.approx(0.125)


def test_an_import_path_is_a_function_too():
    gate = CustomGate(function="nemo_sspo.objective.gates:power", arguments={"exponent": 1.0})
    assert bind(gate, GATE_WEIGHTS)(np.float64(0.25)) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "path", ["no_such_package:f", "nemo_sspo.objective.gates:nothing", "nemo_sspo.objective.gates", ""]
)
def test_a_path_that_leads_nowhere_is_named(path):
    with pytest.raises(UserError, match=f"function={path}: cannot be imported"):
        bind(CustomGate(function=path), GATE_WEIGHTS)
