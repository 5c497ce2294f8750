"""The pairs of an iteration: sampled, judged, calibrated and laid out for training, by the pipeline's own functions.

Legend: N prompts, K responses, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import Gate, LinearGate, NoGate
from nemo_sspo.lab.language.arms import Arm
from nemo_sspo.lab.language.policy import Row, prompt_ids
from nemo_sspo.lab.language.world import Prompt, meaning_of
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.objective.pair_batch import PairTargets
from nemo_sspo.objective.targets import PairSupervision, build_targets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """An iteration's responses and what is known of them."""

    prompts: tuple[Prompt, ...]
    token_ids: list[list[list[int]]]
    texts: list[list[str]]
    logits_NKK: Array
    similarity_NKK: Array


@dataclass(frozen=True)
class Pairs:
    """What is trained on: rows 2i and 2i + 1 are pair i's chosen and rejected response."""

    rows: list[Row]
    targets: PairTargets
    eta_factor: float
    facts: dict[str, float]

    def __len__(self) -> int:
        return len(self.rows) // 2


def pairs_of(sampled: Sampled, arm: Arm, rng: np.random.Generator) -> Pairs:
    """One calibrated pair of every prompt that has two different responses of different scores."""
    supervision = _supervision(sampled, arm.gate, rng if arm.control == "permuted" else None)
    kept = [
        index
        for index, (chosen, rejected) in enumerate(zip(supervision.chosen, supervision.rejected, strict=True))
        if not supervision.tied[index] and sampled.texts[index][chosen] != sampled.texts[index][rejected]
    ]
    sides = [(index, side[index]) for index in kept for side in (supervision.chosen, supervision.rejected)]
    rows = [Row(prompt_ids(sampled.prompts[i].text), sampled.token_ids[i][k]) for i, k in sides]
    meaning = np.array([meaning_of(sampled.texts[i][k]) for i, k in sides]).reshape(-1, 2)
    given = (supervision.target_chosen, supervision.target_rejected, supervision.target_pair)
    facts = {
        "pairs": len(kept),
        "same_meaning": float((meaning[:, 0] == meaning[:, 1]).mean()),
        "similarity": float(supervision.similarity[kept].mean()),
        "margin_before": float(supervision.margin_before[kept].mean()),
        "margin_after": float(supervision.margin_after[kept].mean()),
    }
    eta_factor = 1.0
    if arm.control in ("smaller_eta", "larger_eta"):
        shrunk = _mean_target(_supervision(sampled, LinearGate(), None), kept)
        shrunk /= _mean_target(_supervision(sampled, NoGate(), None), kept)
        eta_factor = shrunk if arm.control == "smaller_eta" else 1 / shrunk
    return Pairs(rows, PairTargets(*(_tensor(target[kept]) for target in given)), eta_factor, facts)


def _supervision(sampled: Sampled, gate: Gate, permuting: np.random.Generator | None) -> PairSupervision:
    similarity_NKK = sampled.similarity_NKK
    if permuting is not None:
        similarity_NKK = similarity_NKK[permuting.permutation(len(similarity_NKK))]
    return build_targets(sampled.logits_NKK, similarity_NKK, gate_form=gate.form, gate_weight=bind(gate, GATE_WEIGHTS))


def _mean_target(supervision: PairSupervision, kept: Sequence[int]) -> float:
    targets = np.stack([supervision.target_chosen[kept], supervision.target_rejected[kept]])
    return float(np.abs(targets - 0.5).mean())


def true_targets(sampled: Sampled, truth_NKK: Array) -> Pairs:
    """The same responses' pairs as a judge without error would have them, ungated."""
    judged = Sampled(sampled.prompts, sampled.token_ids, sampled.texts, truth_NKK, sampled.similarity_NKK)
    return pairs_of(judged, Arm("truth", gate=NoGate()), np.random.default_rng(0))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values).float()
