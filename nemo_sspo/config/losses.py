"""The kinds of loss: functions of ``objective/losses.py``."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from nemo_sspo.config.functions import CustomFunction, FunctionVariant
from nemo_sspo.config.roles import ImportPath

LossScale = Literal["eta", "beta"]


class LossVariant(FunctionVariant):
    section = "loss"
    signature = ("pairs",)
    reads: ClassVar[Literal["win rates", "pair", "choice"]] = "win rates"
    """The targets that it reads: each response's win rate, the pair's probability, or only which response was chosen.
    A semantic gate has no effect on what the last kind trains."""
    separable: ClassVar[bool] = False
    """A response's gradient needs the log-prob of that response only (`objective/separable.py`): the one-pass head can
    train it."""

    @property
    def factor(self) -> float:
        """What the function's value is multiplied by."""
        return 1.0


class _Regression(LossVariant):
    separable = True
    not_arguments = frozenset({"scale"})
    eta: PositiveFloat = 1000.0
    """Scale of the log-ratio targets, 1/beta (SPPO: 1e3)."""
    scale: LossScale = "eta"
    """``eta``: as the papers write it; ``beta``: everything times beta^2 (same optimum, another meaning of lambda)."""

    @property
    def factor(self) -> float:
        """beta^2 = eta^-2 makes (d - eta (p - 1/2))^2 the square of beta d - (p - 1/2)."""
        return self.eta**-2 if self.scale == "beta" else 1.0


class SppoLoss(_Regression):
    kind: Literal["sppo"] = "sppo"


class SppoSingleLoss(_Regression):
    reads = "pair"
    kind: Literal["sppo_single"] = "sppo_single"


class SppoHardLoss(_Regression):
    reads = "choice"
    kind: Literal["sppo_hard"] = "sppo_hard"


class _Contrast(LossVariant):
    reads = "choice"
    beta: PositiveFloat = 0.1
    """Inverse temperature of the implicit reward."""


class DpoLoss(_Contrast):
    kind: Literal["dpo"] = "dpo"


class IpoLoss(_Contrast):
    kind: Literal["ipo"] = "ipo"
    beta: PositiveFloat = 0.1
    """The gap of the two log-ratios regresses to 1 / (2 beta). A log-ratio is the **sum** over a response's tokens, as
    in IPO's paper (Azar et al., 2024, eq. 17); TRL's ``ipo`` takes their mean, so its beta is another one."""


class KtoPairLoss(_Contrast):
    kind: Literal["kto_pair"] = "kto_pair"


class CustomLoss(LossVariant, CustomFunction):
    earlier_signature: ClassVar = ("d_chosen_B", "d_rejected_B", "targets")
    kind: Literal["custom"] = "custom"
    function: Annotated[str, ImportPath()]
    """Import path ``package.module:function`` of a function with the signature of those in ``objective/``, or with the
    earlier one, ``(d_chosen_B, d_rejected_B, targets, *, …)``."""


Loss = Annotated[
    SppoLoss | SppoSingleLoss | SppoHardLoss | DpoLoss | IpoLoss | KtoPairLoss | CustomLoss, Field(discriminator="kind")
]
