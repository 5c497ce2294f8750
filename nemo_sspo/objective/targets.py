"""The supervision of one pair per prompt: selection, win rates and their semantic calibration, in one pass.

Legend: N prompts, K responses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.objective.gates import calibrate
from nemo_sspo.objective.pair_selection import estimating, select_pairs
from nemo_sspo.objective.win_rates import mean_scores, symmetrize, win_probabilities, win_rates

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairSupervision:
    """One candidate pair per prompt; every field is [N]. ``tied`` prompts have no pair (chosen == rejected)."""

    chosen: NDArray[np.intp]
    rejected: NDArray[np.intp]
    tied: NDArray[np.bool_]
    similarity: Array
    p_chosen: Array
    p_rejected: Array
    target_chosen: Array
    target_rejected: Array
    target_pair: Array

    @property
    def margin_before(self) -> Array:
        """Difference of the pair's win rates as the oracle gives them."""
        return self.p_chosen - self.p_rejected

    @property
    def margin_after(self) -> Array:
        """Difference of the pair's calibrated targets."""
        return self.target_chosen - self.target_rejected


def build_targets(
    logits_NKK: Array,
    similarity_NKK: Array,
    *,
    symmetrization: str = "half",
    estimator: str = "pairwise",
    include_self: bool = True,
    estimated_from: int | None = None,
    gate_form: str = "pair",
    gate_weight: Callable[[Array], Array],
) -> PairSupervision:
    """Select and calibrate one pair per prompt (S-SPPO Algorithm 1).

    ``similarity_NKK`` is max(0, cosine) of the response embeddings. ``gate_form`` says whose overlap anneals a target:
    ``pair`` the selected pair's own (S-SPPO's practical form), ``mean_overlap`` each response's mean over the
    others (eq. 3.1), ``pairwise`` every P_ij by its own S_ij before the row mean (A.1, for which Lemma 3.1 is exact).
    ``estimated_from`` responses estimate the win rates, the pair among them (SPPO's ablation of K); None takes all.
    """
    p_NKK = win_probabilities(logits_NKK, symmetrization=symmetrization, estimator=estimator)
    chosen, rejected = select_pairs(mean_scores(symmetrize(logits_NKK, symmetrization)))
    k = p_NKK.shape[-1]
    those = None if estimated_from is None or estimated_from >= k else estimating(chosen, rejected, k, estimated_from)
    estimate = partial(win_rates, include_self=include_self, estimating_NK=those)
    p_NK = estimate(p_NKK)
    rows = np.arange(len(chosen))
    similarity = similarity_NKK[rows, chosen, rejected]
    pair_weight = gate_weight(similarity)

    gated_NK = _gate_rows(p_NKK, p_NK, similarity_NKK, pair_weight, gate_form, gate_weight, estimate)
    return PairSupervision(
        chosen=chosen,
        rejected=rejected,
        tied=chosen == rejected,
        similarity=similarity,
        p_chosen=p_NK[rows, chosen],
        p_rejected=p_NK[rows, rejected],
        target_chosen=gated_NK[rows, chosen],
        target_rejected=gated_NK[rows, rejected],
        target_pair=calibrate(p_NKK[rows, chosen, rejected], pair_weight),
    )


def _gate_rows(
    p_NKK: Array,
    p_NK: Array,
    similarity_NKK: Array,
    pair_weight_N: Array,
    gate_form: str,
    gate_weight: Callable[[Array], Array],
    estimate: Callable[[Array], Array],
) -> Array:
    """Calibrated win rate of every response under a gate form. Returns [N, K]."""
    if gate_form == "pair":
        return calibrate(p_NK, pair_weight_N[:, None])
    if gate_form == "mean_overlap":
        k = similarity_NKK.shape[-1]
        own_NK = np.diagonal(similarity_NKK, axis1=-2, axis2=-1)
        overlap_NK = (similarity_NKK.sum(axis=-1) - own_NK) / (k - 1)
        return calibrate(p_NK, gate_weight(overlap_NK))
    if gate_form == "pairwise":
        return estimate(calibrate(p_NKK, gate_weight(similarity_NKK)))
    raise ValueError(f"unknown gate form {gate_form!r}: choose pair, mean_overlap or pairwise")
