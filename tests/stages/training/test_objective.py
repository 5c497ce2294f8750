"""What an experiment's loss and repulsion become in training: scale, parameters, and which head may take them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch

from nemo_sspo.config.losses import DpoLoss, Loss, SppoHardLoss, SppoLoss, SppoSingleLoss
from nemo_sspo.config.repulsions import CustomRepulsion, EuclideanRepulsion, HingeRepulsion, KernelRepulsion
from nemo_sspo.objective.pair_batch import PairTargets
from nemo_sspo.stages.training.train import objective_of, repulsion_weight_of
from tests.pair_batches import of_log_ratios
from tests.stages import runs

D_CHOSEN, D_REJECTED = 3.0, -2.0
CHOSEN, REJECTED, PAIR = 0.9, 0.25, 0.8


def loss_of(loss: Loss, root: Path) -> float:
    targets = PairTargets(*(torch.tensor([value]) for value in (CHOSEN, REJECTED, PAIR)))
    objective = objective_of(runs.experiment(root, loss=loss))
    return objective.loss(of_log_ratios(torch.tensor([D_CHOSEN]), torch.tensor([D_REJECTED]), targets)).item()


@pytest.mark.parametrize("eta", [20.0, 1000.0])
def test_the_scale_beta_is_the_papers_loss_in_units_of_probability(tmp_path: Path, eta: float) -> None:
    """(beta d - (p - 1/2))^2 with beta = 1 / eta: everything is multiplied by beta^2."""
    beta = 1 / eta
    chosen, rejected, step = CHOSEN - 0.5, REJECTED - 0.5, PAIR - 0.5
    expected = {
        SppoLoss: 0.5 * ((beta * D_CHOSEN - chosen) ** 2 + (beta * D_REJECTED - rejected) ** 2),
        SppoSingleLoss: 0.5 * ((beta * D_CHOSEN - step) ** 2 + (beta * D_REJECTED + step) ** 2),
        SppoHardLoss: (beta * D_CHOSEN - 0.5) ** 2 + (beta * D_REJECTED + 0.5) ** 2,
    }
    for loss, value in expected.items():
        assert loss_of(loss(eta=eta, scale="beta"), tmp_path) == pytest.approx(value, rel=1e-5)
        assert loss_of(loss(eta=eta), tmp_path) == pytest.approx(value * eta**2, rel=1e-5)


def test_only_what_regresses_each_side_alone_may_take_the_one_pass_head(tmp_path: Path) -> None:
    regressions = SppoLoss(), SppoLoss(scale="beta"), SppoSingleLoss(), SppoHardLoss()
    assert all(objective_of(runs.experiment(tmp_path, loss=loss)).separable for loss in regressions)
    assert not objective_of(runs.experiment(tmp_path, loss=DpoLoss())).separable


def test_a_repulsion_gets_its_own_parameter(tmp_path: Path) -> None:
    states = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])  # cosine 0.6, squared distance 0.8
    path = "nemo_sspo.objective.repulsion:kernel"
    for repulsion, expected in (
        (EuclideanRepulsion(), -0.4),
        (HingeRepulsion(margin=0.1), 0.6 - 0.1),
        (KernelRepulsion(temperature=4.0), math.exp(-0.8 / 4)),
        (CustomRepulsion(function=path, arguments={"temperature": 2.0}), math.exp(-0.8 / 2)),
    ):
        found = objective_of(runs.experiment(tmp_path, repulsion=repulsion)).repulsion(*states)
        assert found.item() == pytest.approx(expected, rel=1e-6), repulsion


def test_lambda_falls_from_its_weight_over_the_steps() -> None:
    weight = repulsion_weight_of(EuclideanRepulsion(weight=3.0, schedule="linear"))
    assert [weight(step, 4) for step in (0, 1, 2)] == [3.0, 2.25, 1.5]
