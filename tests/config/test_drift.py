"""Registry keys, configuration kinds and YAML names are the same sets."""

import inspect
import re
from typing import get_args

import pytest

from nemo_sspo.config.encoders import Encoder
from nemo_sspo.config.engines import Engine
from nemo_sspo.config.gates import GATES, Gate
from nemo_sspo.config.load import choices, config_root
from nemo_sspo.config.losses import Loss
from nemo_sspo.config.oracles import Oracle
from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.repulsions import Repulsion

pytest.importorskip("torch")

from nemo_sspo.encoder.registry import ENCODERS
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.objective.losses import LOSSES
from nemo_sspo.objective.repulsion import REPULSIONS
from nemo_sspo.oracle.registry import ORACLES


def kinds(union) -> set[str]:
    members = get_args(get_args(union)[0]) or (get_args(union)[0],)
    return {member.model_fields["kind"].default for member in members}


OF_A_KIND = {"linear_pairwise"}
"""Choices that are a kind with a setting of its own."""


@pytest.mark.parametrize(
    ("registry", "union", "group"),
    [
        (LOSSES, Loss, "loss"),
        (GATE_WEIGHTS, Gate, "gate"),
        (REPULSIONS, Repulsion, "repulsion"),
    ],
)
def test_kinds_with_an_import_path(registry, union, group):
    assert {*registry, "custom"} == kinds(union)
    assert kinds(union) == {choice for choice in choices(group) if choice not in OF_A_KIND}


def test_precisions():
    assert kinds(Precision) == set(choices("precision"))


def test_oracles_and_encoders_and_engines():
    assert set(ORACLES) == kinds(Oracle) == set(choices("oracle"))
    assert set(ENCODERS) == kinds(Encoder)
    assert kinds(Engine) == set(choices("engine"))


def test_parameters_of_a_kind_are_those_of_its_function():
    """A variant can only be bound when its settings are its function's keyword arguments."""
    for registry, union in ((LOSSES, Loss), (GATE_WEIGHTS, Gate), (REPULSIONS, Repulsion)):
        for member in get_args(get_args(union)[0]):
            kind = member.model_fields["kind"].default
            if kind == "custom":
                continue
            parameters = inspect.signature(registry[kind]).parameters.values()
            names = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
            assert tuple(names) == member.signature, kind
            keywords = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
            assert set(member().keywords()) == keywords, kind


def test_every_gate_of_ours_is_diagnosed_at_its_defaults():
    assert {gate.kind for gate in GATES} == set(GATE_WEIGHTS)
    assert GATES[0].kind == "none"  # the others are compared with it


def test_every_choice_begins_with_a_line_that_says_what_it_is():
    for path in sorted(config_root().glob("*/*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = next(line for line in lines if line != "# @package _global_")
        assert re.fullmatch(r"# \S.{10,}", comment), path
