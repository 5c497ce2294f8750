"""Self-play from samples, through the pipeline's own code: K responses a prompt, one pair of them, gated targets.

The regression on a pair's two targets is solved exactly, as a table could: a response's log-ratio becomes the mean of
eta (target - 1/2) over the pairs that it is in, the minimum of the `sppo` loss. A response in no pair keeps its weight.
"""

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.game.gates import GateCase
from nemo_sspo.lab.game.meanings import MeaningGames
from nemo_sspo.objective.targets import build_targets

Array = NDArray[np.float64]

K = 5
"""Responses sampled for a prompt, as in both papers."""
ITERATIONS = 3
"""As in both papers."""
PROMPTS = 64
"""Times that every game's prompt is asked in an iteration."""


def sampled_self_play(games: MeaningGames, case: GateCase, *, eta: float, seed: int = 0) -> Array:
    """The policy after `ITERATIONS` [N, K of the game], trained on the oracle."""
    generator = np.random.default_rng(seed)
    log_NK = np.log(games.base_NK)
    for _ in range(ITERATIONS):
        log_NK = log_NK + _log_ratios(games, np.exp(log_NK), case, eta, generator)
        log_NK -= np.logaddexp.reduce(log_NK, axis=-1, keepdims=True)
    return np.exp(log_NK)


def _log_ratios(
    games: MeaningGames, policy_NK: Array, case: GateCase, eta: float, generator: np.random.Generator
) -> Array:
    count, k = policy_NK.shape
    # Inverse sampling; the last cumulative sum may be below 1 by rounding.
    drawn = generator.uniform(size=(count, PROMPTS * K, 1))
    responses = (drawn > np.cumsum(policy_NK, axis=-1)[:, None, :-1]).sum(axis=-1).reshape(count * PROMPTS, K)
    game = np.repeat(np.arange(count), PROMPTS)[:, None, None]
    both = game, responses[:, :, None], responses[:, None, :]
    supervision = build_targets(
        games.logits_NKK[both], games.similarity_NKK[both], gate_form=case.form, gate_weight=case.weight
    )
    rows = np.arange(len(responses))
    chosen, rejected = responses[rows, supervision.chosen], responses[rows, supervision.rejected]
    pairs = chosen != rejected  # equal texts are no pair
    place = np.concatenate([(game[:, 0, 0] * k + each)[pairs] for each in (chosen, rejected)])
    targets = np.concatenate([each[pairs] for each in (supervision.target_chosen, supervision.target_rejected)])
    total, times = np.bincount(place, targets - 0.5, count * k), np.bincount(place, minlength=count * k)
    return eta * (total / np.maximum(times, 1)).reshape(count, k)
