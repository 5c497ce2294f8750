"""A variant binds to the function of its name; a custom one to its import path."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from nemo_sspo.config.binding import bind, module_file
from nemo_sspo.config.gates import CustomGate, PowerGate
from nemo_sspo.config.losses import LossVariant, SppoLoss
from nemo_sspo.errors import UserError
from nemo_sspo.objective import gates
from nemo_sspo.objective.gates import GATE_WEIGHTS


def test_parameters_of_the_variant_reach_the_function():
    weight = bind(PowerGate(exponent=3.0), GATE_WEIGHTS)
    assert weight(np.float64(0.5)) == pytest.approx(0.125)


def test_an_import_path_is_a_function_too():
    gate = CustomGate(function="nemo_sspo.objective.gates:power", arguments={"exponent": 1.0})
    assert bind(gate, GATE_WEIGHTS)(np.float64(0.25)) == pytest.approx(0.75)


def test_the_file_of_a_path_is_found_and_nothing_of_it_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "their_package"
    (package / "inner").mkdir(parents=True)  # a namespace, without an __init__.py
    (package / "__init__.py").write_text("raise RuntimeError('was run')")
    (package / "inner" / "gates.py").write_text("import torch_that_is_not_here")
    assert module_file("their_package.inner.gates:weight") == package / "inner" / "gates.py"
    assert module_file("their_package:weight") == package / "__init__.py"
    (tmp_path / "their_file.py").write_text("")
    assert module_file("their_file:weight") == tmp_path / "their_file.py"
    assert module_file("nemo_sspo.objective.gates:power") == Path(gates.__file__)
    for absent in (
        "their_package.outer:f",
        "their_file.inner:f",
        "no_such_package.x:f",
        "",
        ".",
        "json:loads",
        "numpy:exp",
    ):
        assert module_file(absent) is None, absent  # the last two are the environment's


@pytest.mark.parametrize(
    "path", ["no_such_package:f", "nemo_sspo.objective.gates:nothing", "nemo_sspo.objective.gates", ""]
)
def test_a_path_that_leads_nowhere_is_named(path):
    with pytest.raises(UserError, match=f"gate.function={path}: .*package.module:function"):
        bind(CustomGate(function=path), GATE_WEIGHTS)


@pytest.mark.parametrize("arguments", [{}, {"power": 2.0}])
def test_a_function_that_cannot_be_called_so_is_refused_with_the_call(arguments):
    path = "nemo_sspo.objective.gates:power"
    call = "power(similarity, power=...)" if arguments else "power(similarity)"
    begin = re.escape(f"gate.function={path}: cannot be called as {call} (")
    reason = r"missing a required (keyword-only )?argument: 'exponent'"  # Python 3.11's words, and 3.12's
    with pytest.raises(UserError, match=rf"^{begin}{reason}\); change the function or gate.arguments$"):
        bind(CustomGate(function=path, arguments=arguments), GATE_WEIGHTS)


@pytest.mark.parametrize("scale", ["eta", "beta"])
def test_a_new_loss_with_a_scale_is_scaled(scale):
    """Of a variant that nobody but its class declares: a setting cannot be read past."""

    class Inherits(SppoLoss):
        kind: Literal["new"] = "new"

    class DeclaresItself(LossVariant):
        kind: Literal["new"] = "new"
        scale: Literal["eta", "beta"] = "eta"

    assert Inherits(eta=10.0, scale=scale).factor == {"eta": 1.0, "beta": 0.01}[scale]
    with pytest.raises(TypeError, match="scale"):
        bind(DeclaresItself(scale=scale), {"new": lambda: 0.0})()
