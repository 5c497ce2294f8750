"""DPO that takes each label for right, turned round or a tie, as far as the policy's own margin says so.

After the idea of PLC-DPO (arXiv 2608.30597): a latent state per pair, inferred from the margin between policy and
reference, mixes DPO, DPO of the label turned round, and a term that pulls ties together. Its abstract is all that was
at hand: priors, scale and the form of the tie's term are ours, and no number of that paper is claimed for it.

Legend: B pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_sspo.objective.pair_batch import PairBatch

PRIORS = (0.6, 0.1, 0.3)
"""Of a right label, a label turned round, and a tie."""
_MEMORY = 0.9


class LatentTies:
    """The loss, with a running mean of the margins' size that says what a small margin is."""

    def __init__(self, *, beta: float) -> None:
        self._beta, self._scale = beta, 1.0

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of every pair, [B]; the states' weights carry no gradient."""
        margin_B = self._beta * (pairs.d_chosen_B - pairs.d_rejected_B)
        size_B = margin_B.detach().abs()
        self._scale = _MEMORY * self._scale + (1 - _MEMORY) * max(float(size_B.mean()), 1e-3)
        z_B = margin_B.detach() / self._scale
        likelihood_B3 = torch.stack([F.logsigmoid(z_B), F.logsigmoid(-z_B), -0.5 * z_B.square()], dim=1)
        right_B, turned_B, tie_B = (likelihood_B3 + torch.tensor(PRIORS).log()).softmax(dim=1).unbind(dim=1)
        return -right_B * F.logsigmoid(margin_B) - turned_B * F.logsigmoid(-margin_B) + tie_B * margin_B.square()
