"""What a policy is worth where the truth is known, and how noisy its gradient is.

Legend: N prompts, K and J responses of two policies, G batches, D parameters.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from nemo_sspo.lab.language import sentences as text
from nemo_sspo.lab.language.judge import Judge
from nemo_sspo.lab.language.world import Prompt, meaning_of
from nemo_sspo.objective.win_rates import sigmoid

Texts = Sequence[Sequence[str]]


def win_rate(judge: Judge, prompts: Sequence[Prompt], ours: Texts, theirs: Texts) -> float:
    """Mean probability that a response of ours beats one of theirs to the same prompt, over all pairs of them."""
    together = [[*first, *second] for first, second in zip(ours, theirs, strict=True)]
    logits_NKJ = judge.logits(prompts, together)[:, : len(ours[0]), len(ours[0]) :]
    return float(sigmoid(logits_NKJ).mean())


def variety(responses: Texts) -> dict[str, float]:
    """Whether responses still differ: distinct ones per prompt, and the entropy of the meanings' wording, in nats."""
    meanings = [[meaning_of(answer) for answer in row] for row in responses]
    flat = [answer for row in responses for answer in row]
    by_meaning: dict[int, list[str]] = {}
    for answer, meaning in zip(flat, [each for row in meanings for each in row], strict=True):
        by_meaning.setdefault(meaning, []).append(answer)
    garbled = len(by_meaning.pop(len(text.MEANINGS), []))
    said = sum(map(len, by_meaning.values()))
    return {
        "distinct": float(np.mean([len(set(row)) / len(row) for row in responses])),
        "meanings": float(np.mean([len(set(row)) for row in meanings])),
        "wording_entropy": sum(len(group) / said * _entropy(group) for group in by_meaning.values()) if said else 0.0,
        "garbled": garbled / len(flat),
    }


def _entropy(answers: Sequence[str]) -> float:
    _, count = np.unique(answers, return_counts=True)
    share = count / count.sum()
    return float(-(share * np.log(share)).sum())


def gradient_noise(gradients: Iterable[Tensor], truth: Tensor) -> dict[str, float]:
    """Scatter of the batches' gradients and how well their mean points along the gradient of true preferences [D].

    ``gradient_variance`` is the trace of the batches' covariance, ``gradient_noise`` that over the squared length of
    the mean; ``alignment`` is a cosine.
    """
    each_GD = torch.stack(list(gradients)).double()
    mean_D = each_GD.mean(0)
    variance = float((each_GD - mean_D).square().sum() / (len(each_GD) - 1))
    cosine = torch.nn.functional.cosine_similarity(mean_D, truth.double(), dim=0)
    return {
        "gradient_variance": variance,
        "gradient_noise": variance / float(mean_D.square().sum()),
        "alignment": float(cosine),
    }
