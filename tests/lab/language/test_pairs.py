"""Pairs of an iteration: the gate anneals what means the same, controls do what their names say."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import numpy as np
import torch

from nemo_sspo.lab.language.arms import ARMS
from nemo_sspo.lab.language.judge import Judge
from nemo_sspo.lab.language.measures import gradient_noise, variety, win_rate
from nemo_sspo.lab.language.pairs import Pairs, Sampled, pairs_of, true_targets
from nemo_sspo.lab.language.policy import row_of
from nemo_sspo.lab.language.world import World, sentences_of

N, K = 40, 5


@pytest.fixture(scope="module")
def world() -> World:
    return World.draw(2)


@pytest.fixture(scope="module")
def sampled(world: World) -> Sampled:
    """Responses of two meanings; the encoder knows meanings exactly."""
    rng, prompts = np.random.default_rng(0), world.prompts[:N]
    meaning_NK = rng.integers(2, size=(N, K))
    texts = [[sentences_of(m)[rng.integers(288)].text for m in row] for row in meaning_NK]
    ids = [[row_of("tell me", answer).response for answer in row] for row in texts]
    similarity = (meaning_NK[:, :, None] == meaning_NK[:, None, :]).astype(float)
    return Sampled(prompts, ids, texts, Judge(world, 6.0).logits(prompts, texts), similarity)


def _pairs(sampled: Sampled, arm: str) -> Pairs:
    return pairs_of(sampled, ARMS[arm], np.random.default_rng(0))


def test_the_gate_makes_ties_of_equal_meanings(sampled: Sampled) -> None:
    plain, gated = _pairs(sampled, "sppo"), _pairs(sampled, "gate")
    assert len(plain) == len(gated) > 30
    margins = gated.targets.chosen_B - gated.targets.rejected_B
    before = plain.targets.chosen_B - plain.targets.rejected_B
    assert ((margins == 0) | torch.isclose(margins, before)).all(), "similarities are 0 or 1: all or nothing is kept"
    assert int((margins == 0).sum()) == round(gated.facts["same_meaning"] * len(gated))
    assert 0 < gated.facts["same_meaning"] < 1


def test_eta_makes_mean_targets_equal(sampled: Sampled) -> None:
    def size(pairs: Pairs) -> float:
        return float(torch.stack([pairs.targets.chosen_B - 0.5, pairs.targets.rejected_B - 0.5]).abs().mean())

    plain, gated = _pairs(sampled, "sppo"), _pairs(sampled, "gate")
    smaller, larger = _pairs(sampled, "sppo, smaller eta"), _pairs(sampled, "gate, larger eta")
    assert smaller.eta_factor < 1 < larger.eta_factor
    assert smaller.eta_factor * size(smaller) == pytest.approx(size(gated), rel=1e-5)
    assert larger.eta_factor * size(larger) == pytest.approx(size(plain), rel=1e-5)


def test_permuted_similarities_are_another_prompts(sampled: Sampled) -> None:
    gated, permuted = _pairs(sampled, "gate"), _pairs(sampled, "gate, permuted")
    assert [row.response for row in gated.rows] == [row.response for row in permuted.rows]
    assert not torch.equal(gated.targets.chosen_B, permuted.targets.chosen_B)


def test_a_true_judge_pairs_no_equal_meanings(sampled: Sampled, world: World) -> None:
    truth = Judge(world, 0.0).logits(sampled.prompts, sampled.texts)
    assert true_targets(sampled, truth).facts["same_meaning"] == 0


def test_win_rate_of_a_policy_against_itself_is_half(sampled: Sampled, world: World) -> None:
    judge = Judge(world, 6.0)
    assert win_rate(judge, sampled.prompts, sampled.texts, sampled.texts) == pytest.approx(0.5)
    other = [[*row[1:], "nonsense"] for row in sampled.texts]
    assert win_rate(judge, sampled.prompts, sampled.texts, other) > 0.5


def test_variety_in_closed_form() -> None:
    said = [sentences_of(0)[index].text for index in range(4)]
    even = variety([said, said])
    assert even["wording_entropy"] == pytest.approx(np.log(4))
    assert (even["distinct"], even["meanings"], even["garbled"]) == (1.0, 1.0, 0.0)
    collapsed = variety([said[:1] * 4, [*said[:1] * 3, "nonsense"]])
    assert collapsed["wording_entropy"] == 0
    assert collapsed["garbled"] == 1 / 8
    assert collapsed["distinct"] == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_gradient_noise_in_closed_form() -> None:
    found = gradient_noise([torch.tensor([1.0, 0.0]), torch.tensor([3.0, 2.0])], torch.tensor([2.0, 1.0]))
    assert found["gradient_variance"] == pytest.approx(4.0)
    assert found["gradient_noise"] == pytest.approx(4.0 / 5.0)
    assert found["alignment"] == pytest.approx(1.0)
