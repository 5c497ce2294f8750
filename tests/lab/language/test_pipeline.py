"""The lab's step is the pipeline's: its loss and gradient equal those of Megatron's path on the same states."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")
pytest.importorskip("transformers")

import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from nemo_sspo.config.binding import bind
from nemo_sspo.lab.language.arms import ARMS
from nemo_sspo.lab.language.pairs import Pairs
from nemo_sspo.lab.language.policy import Recipe, Row, forward, logps, row_of, starting_policy
from nemo_sspo.lab.language.training import Batch, step_loss
from nemo_sspo.lab.language.world import World
from nemo_sspo.megatron.batches.microbatch import PreferencePair, padded_microbatch
from nemo_sspo.megatron.batches.row_shape import RowShape
from nemo_sspo.megatron.loss.loss import HeadLayout, PreferenceObjective, preference_loss
from nemo_sspo.objective.pair_batch import PairTargets
from nemo_sspo.objective.repulsion import REPULSIONS
from tests.megatron.conftest import one_rank

__all__ = ["one_rank"]
PAIRS = 3


@pytest.fixture(scope="module")
def policy() -> LlamaForCausalLM:
    return starting_policy(World.draw(3), Recipe(rows=128, epochs=1))


@pytest.mark.parametrize("name", ["sppo", "s-sppo", "dpo", "repulsion, mean state", "repulsion, scale beta"])
def test_loss_and_gradient(name: str, policy: LlamaForCausalLM, one_rank: dist.ProcessGroup) -> None:
    arm = ARMS[name]
    rows = [row_of(*given) for given in World.draw(3).teach(2 * PAIRS)]
    rows = [Row(rows[2 * (index // 2)].prompt, row.response) for index, row in enumerate(rows)]
    targets = PairTargets(torch.tensor([0.9, 0.7, 0.6]), torch.tensor([0.2, 0.4, 0.5]), torch.tensor([0.8, 0.6, 0.55]))
    reference_P2 = logps(policy, rows).view(-1, 2) + torch.arange(2 * PAIRS).view(-1, 2) * 0.3

    batch = Batch(Pairs(rows, targets, 1.0, {}), torch.arange(PAIRS), reference_P2)
    ours = step_loss(forward(policy, batch.rows()), batch, arm, arm.bound_loss(1.0), arm.repulsion.weight)
    our_gradient = torch.autograd.grad(ours, list(policy.parameters()))

    its = _by_megatron(policy, batch, arm, one_rank)
    torch.testing.assert_close(ours, its, rtol=1e-5, atol=0)
    for mine, theirs in zip(our_gradient, torch.autograd.grad(its, list(policy.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def _by_megatron(policy: LlamaForCausalLM, batch: Batch, arm, group: dist.ProcessGroup) -> torch.Tensor:
    pairs, (rows, targets) = [], (batch.rows(), batch.pairs.targets)
    for index, (chosen, rejected) in enumerate(zip(rows[0::2], rows[1::2], strict=True)):
        reference = map(float, batch.ref_logps_P2[index])
        given = (float(target[index]) for target in targets)
        pairs.append(PreferencePair(str(index), chosen.prompt, chosen.response, rejected.response, *reference, *given))
    microbatch = padded_microbatch(pairs, [1 / PAIRS] * PAIRS, RowShape())
    states_SBH = policy.model(microbatch.tokens_BS, use_cache=False).last_hidden_state.transpose(0, 1)
    objective = PreferenceObjective(arm.bound_loss(1.0), bind(arm.repulsion, REPULSIONS), pooling=arm.repulsion.pooling)
    layout = HeadLayout(
        vocab_size=policy.config.vocab_size, chunk_tokens=7, sequence_parallel=False, tp_group=group, cp_group=None
    )
    weight = arm.repulsion.weight
    loss, _ = preference_loss(states_SBH, policy.lm_head.weight, microbatch, objective, layout, repulsion_weight=weight)
    return loss
