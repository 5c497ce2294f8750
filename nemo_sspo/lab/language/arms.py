"""What is compared: S-SPPO's Table 5, its neighbours and its controls, as the settings that a run would have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import Gate, LinearGate, NoGate, PowerGate, SigmoidGate, ThresholdGate
from nemo_sspo.config.losses import DpoLoss, IpoLoss, Loss, SppoLoss
from nemo_sspo.config.repulsions import (
    CosineSquaredRepulsion,
    EuclideanRepulsion,
    HingeRepulsion,
    KernelRepulsion,
    Repulsion,
)
from nemo_sspo.lab.language.ties import LatentTies
from nemo_sspo.objective.losses import LOSSES
from nemo_sspo.objective.pair_batch import PairBatch

ETA = 20.0
"""Scale of the log-ratios' targets. The papers' 1,000 asks for changes of hundreds of nats, which 32 steps cannot make;
here a policy reaches a good part of its targets, so that a wrong target does harm."""
BETA = 0.1
"""Of DPO and IPO."""

Control = Literal["none", "smaller_eta", "larger_eta", "permuted"]
"""``smaller_eta``: no gate, but eta so much smaller that the mean size of the targets is that of the linear gate's;
``larger_eta``: the linear gate, and eta so much larger that it is that without a gate; ``permuted``: the gate reads the
similarities of another prompt's responses."""


def _no_repulsion() -> Repulsion:
    return EuclideanRepulsion(weight=0.0)


@dataclass(frozen=True)
class Arm:
    """One way of training."""

    name: str
    loss: Loss | Literal["latent_ties"] = field(default_factory=lambda: SppoLoss(eta=ETA))
    gate: Gate = field(default_factory=NoGate)
    repulsion: Repulsion = field(default_factory=_no_repulsion)
    control: Control = "none"

    def bound_loss(self, eta_factor: float) -> Callable[[PairBatch], Tensor]:
        """Loss of every pair; a regression's eta is multiplied by `eta_factor`."""
        if self.loss == "latent_ties":
            return LatentTies(beta=BETA)
        if isinstance(self.loss, SppoLoss):
            loss = self.loss.model_copy(update={"eta": self.loss.eta * eta_factor})
            return lambda pairs: loss.factor * bind(loss, LOSSES)(pairs)
        return bind(self.loss, LOSSES)


def _both(name: str, gate: Gate | None = None, repulsion: Repulsion | None = None, loss: Loss | None = None) -> Arm:
    return Arm(
        name,
        loss=loss or SppoLoss(eta=ETA),
        gate=gate or LinearGate(),
        repulsion=repulsion or EuclideanRepulsion(),
    )


TABLE_5 = (
    Arm("sppo"),
    Arm("gate", gate=LinearGate()),
    Arm("repulsion", repulsion=EuclideanRepulsion()),
    _both("s-sppo"),
)
"""The rows of S-SPPO's Table 5: neither, gate, repulsion, both."""

CONTROLS = (
    Arm("sppo, smaller eta", control="smaller_eta"),
    Arm("gate, larger eta", gate=LinearGate(), control="larger_eta"),
    Arm("gate, permuted", gate=LinearGate(), control="permuted"),
)

BASELINES = (Arm("dpo", loss=DpoLoss(beta=BETA)), Arm("ipo", loss=IpoLoss(beta=BETA)), Arm("ties", loss="latent_ties"))

GATES = (
    Arm("gate, mean overlap", gate=LinearGate(form="mean_overlap")),
    Arm("gate, pairwise", gate=LinearGate(form="pairwise")),
    Arm("gate, power", gate=PowerGate()),
    Arm("gate, sigmoid", gate=SigmoidGate()),
    Arm("gate, threshold", gate=ThresholdGate()),
)

REPULSIONS = (
    *(Arm(f"repulsion, weight {weight:g}", repulsion=EuclideanRepulsion(weight=weight)) for weight in (0.1, 10, 100)),
    Arm("repulsion, mean state", repulsion=EuclideanRepulsion(pooling="mean")),
    Arm("repulsion, cosine squared", repulsion=CosineSquaredRepulsion()),
    Arm("repulsion, hinge", repulsion=HingeRepulsion()),
    Arm("repulsion, kernel", repulsion=KernelRepulsion()),
    Arm("repulsion, scale beta", loss=SppoLoss(eta=ETA, scale="beta"), repulsion=EuclideanRepulsion()),
    Arm("repulsion, linear schedule", repulsion=EuclideanRepulsion(schedule="linear")),
)

ARMS = {arm.name: arm for arm in (*TABLE_5, *CONTROLS, *BASELINES, *GATES, *REPULSIONS)}
