"""An iteration's training: the pipeline's losses and repulsions on a policy of one process.

`tests/lab/language/test_pipeline.py` holds `step_loss` to what Megatron's path computes of the same states.

Legend: B pairs of a batch, R = 2 B responses, D parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, parameters_to_vector
from transformers import LlamaForCausalLM

from nemo_sspo.config.binding import bind
from nemo_sspo.config.stages import Train
from nemo_sspo.lab.language.arms import Arm
from nemo_sspo.lab.language.pairs import Pairs
from nemo_sspo.lab.language.policy import Forward, forward, logps
from nemo_sspo.megatron.optimizer.learning_rate import schedule
from nemo_sspo.objective.pair_batch import PairBatch, PairTargets
from nemo_sspo.objective.repulsion import REPULSIONS, cosine, repulsion_weight, unit

TRAIN = Train(learning_rate=1e-3, global_batch_size=64, train_epochs=4)
"""Chosen, with eta, for plain SPPO under a true judge on two other seeds (100, 101), before any arm was compared."""


@dataclass(frozen=True)
class Batch:
    """Pairs of one optimizer step, and what the reference says of them."""

    pairs: Pairs
    index_B: Tensor
    ref_logps_P2: Tensor

    def rows(self) -> list:
        """Chosen and rejected rows of the pairs, one after the other."""
        return [self.pairs.rows[2 * int(pair) + side] for pair in self.index_B for side in (0, 1)]

    def pair_batch(self, logps_R: Tensor) -> PairBatch:
        """What a preference loss receives."""
        count = len(self.index_B)
        return PairBatch(
            logps_R.view(-1, 2),
            self.ref_logps_P2[self.index_B],
            PairTargets(*(target[self.index_B] for target in self.pairs.targets)),
            torch.tensor([len(row.response) for row in self.rows()]).view(-1, 2),
            torch.full((count,), 1 / count),
        )


def step_loss(found: Forward, batch: Batch, arm: Arm, loss: Callable[[PairBatch], Tensor], weight: float) -> Tensor:
    """Mean over the batch of preference loss + weight * repulsion (S-SPPO Algorithm 1)."""
    total = loss(batch.pair_batch(found.logps_B)).mean()
    if weight:
        units_RH = unit(found.last_BH if arm.repulsion.pooling == "last" else found.mean_BH)
        total = total + weight * bind(arm.repulsion, REPULSIONS)(units_RH[0::2], units_RH[1::2]).mean()
    return total


def train(model: LlamaForCausalLM, pairs: Pairs, arm: Arm, seed: int) -> dict[str, float]:
    """Train in place; returns how far the pairs' log-probs and states have moved."""
    reference_P2 = logps(model, pairs.rows).view(-1, 2)
    loss, order = arm.bound_loss(pairs.eta_factor), torch.Generator().manual_seed(seed)
    per_epoch = -(-len(pairs) // TRAIN.global_batch_size)
    factor, total = schedule(TRAIN, per_epoch), per_epoch * TRAIN.train_epochs
    optimizer = torch.optim.AdamW(
        model.parameters(), TRAIN.learning_rate, (TRAIN.adam_beta1, TRAIN.adam_beta2), weight_decay=TRAIN.weight_decay
    )
    step, norms = 0, []
    for _ in range(TRAIN.train_epochs):
        for index_B in torch.randperm(len(pairs), generator=order).split(TRAIN.global_batch_size):
            batch = Batch(pairs, index_B, reference_P2)
            weight = repulsion_weight(step, total, weight=arm.repulsion.weight, schedule=arm.repulsion.schedule)
            value = step_loss(forward(model, batch.rows()), batch, arm, loss, weight)
            optimizer.zero_grad()
            value.backward()
            norms.append(float(clip_grad_norm_(model.parameters(), TRAIN.clip_grad)))
            for group in optimizer.param_groups:
                group["lr"] = TRAIN.learning_rate * factor(step)
            optimizer.step()
            step += 1
    return _after(model, pairs, reference_P2) | {"gradient_norm": sum(norms) / len(norms)}


@torch.inference_mode()
def _after(model: LlamaForCausalLM, pairs: Pairs, reference_P2: Tensor) -> dict[str, float]:
    """How far the pairs' log-probs moved, and how close their states are."""
    found = forward(model, pairs.rows)
    chosen_P, rejected_P = (found.logps_B.view(-1, 2) - reference_P2).unbind(1)
    units_RH = unit(found.last_BH)
    return {
        "d_chosen": float(chosen_P.mean()),
        "d_rejected": float(rejected_P.mean()),
        "hidden_cosine": float(cosine(units_RH[0::2], units_RH[1::2]).mean()),
    }


def gradients(model: LlamaForCausalLM, pairs: Pairs, arm: Arm) -> Iterator[Tensor]:
    """The gradient [D] of each batch of pairs where training starts, the repulsion's among it."""
    reference_P2, loss = logps(model, pairs.rows).view(-1, 2), arm.bound_loss(pairs.eta_factor)
    weight = repulsion_weight(0, 1, weight=arm.repulsion.weight, schedule=arm.repulsion.schedule)
    for index_B in torch.arange(len(pairs)).split(TRAIN.global_batch_size):
        if len(index_B) == TRAIN.global_batch_size:
            batch = Batch(pairs, index_B, reference_P2)
            value = step_loss(forward(model, batch.rows()), batch, arm, loss, weight)
            parameters = list(model.parameters())
            yield parameters_to_vector(torch.autograd.grad(value, parameters))
