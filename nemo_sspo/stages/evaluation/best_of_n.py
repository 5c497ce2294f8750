"""Best-of-n: of n held-out samples of the new policy the oracle keeps one, which meets the base's responses.

A sample's rank is its mean win rate over all n (its own 1/2 included), both orders of presentation combined (`half`);
ties go to the first. The oracle that picks also judges: the result measures n samples and this oracle together and is
not an independent measurement.

Legend: N prompts, K = n samples, R ordered pairs of samples.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.config.stages import Judging
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import win_probabilities, win_rates
from nemo_sspo.oracle.protocol import PreferenceOracle, Row
from nemo_sspo.stages.evaluation.matches import match_win_rates
from nemo_sspo.stages.sampling.judged_text import reader
from nemo_sspo.stages.sampling.judging import both_orders, turns
from nemo_sspo.stages.sampling.score import refuse_not_finite

Prompts = Mapping[str, Mapping[str, Any]]
"""Text and messages of each prompt, by id."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A response that may be picked."""

    response_id: str
    text: str
    tokens: int


@dataclass(frozen=True)
class BestOfN:
    """The pick for each prompt and its win rate."""

    picked: list[Sample]
    wins_N: NDArray[np.float64]
    """Mean probability that the pick beats a response of the base."""
    facts: Counter[str]
    """What the oracle counted."""


def best_of_n(
    oracle: PreferenceOracle,
    prompts: Prompts,
    samples: Mapping[str, Sequence[Sample]],
    base: Mapping[str, Sequence[str]],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BestOfN:
    """Let the oracle pick one of n `samples` of each prompt, and compare its picks with the responses of `base`.

    Raises:
        UserError: a logit is not finite.
    """
    prompt_ids = list(samples)
    contests = [row for prompt_id in prompt_ids for row in _contests(prompts[prompt_id], samples[prompt_id])]
    total = len(contests) + 2 * sum(len(base[prompt_id]) for prompt_id in prompt_ids)
    first = oracle.compare(contests, lambda done: on_progress(done, total))
    indices_N = pick(first.logits_R.reshape(len(prompt_ids), -1), prompt_ids)
    picked = [samples[prompt_id][index] for prompt_id, index in zip(prompt_ids, indices_N.tolist(), strict=True)]

    finals = [
        row
        for prompt_id, best in zip(prompt_ids, picked, strict=True)
        for theirs in base[prompt_id]
        for row in both_orders(prompts[prompt_id], best.text, theirs)
    ]
    second = oracle.compare(finals, lambda done: on_progress(len(contests) + done, total))
    logits_NM2 = second.logits_R.astype(np.float64).reshape(len(prompt_ids), -1, 2)
    return BestOfN(picked, match_win_rates(logits_NM2, prompt_ids), Counter(first.facts) + Counter(second.facts))


def pick(logits_NR: NDArray[np.float32], prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """Index [N] of the sample with the highest mean win rate; R = n(n - 1) ordered pairs (i, j), i before j."""
    refuse_not_finite(logits_NR, prompt_ids)
    n = round((1 + (1 + 4 * logits_NR.shape[1]) ** 0.5) / 2)
    first, second = (np.array(side) for side in zip(*itertools.permutations(range(n), 2), strict=True))
    logits_NKK = np.zeros((len(logits_NR), n, n))
    logits_NKK[:, first, second] = logits_NR
    return win_rates(win_probabilities(logits_NKK)).argmax(axis=1)


def read_samples(artifact: Artifact, n: int, judging: Judging) -> dict[str, list[Sample]]:
    """The first `n` samples of each held-out prompt, prompts in the order of their ids.

    Raises:
        UserError: a prompt has fewer.
    """
    table = ROLLOUTS.read(artifact.path)
    samples, read = {}, reader(judging, artifact)
    for row in sorted(table.select(["prompt_id", "responses"]).to_pylist(), key=lambda row: row["prompt_id"]):
        if (found := len(row["responses"])) < n:
            raise UserError(
                f"evaluation.best_of_n={n}: {artifact.path} holds {found} samples of prompt {row['prompt_id']}; lower "
                "it, or give this run another name=... so that it samples more"
            )
        samples[row["prompt_id"]] = [
            Sample(response["response_id"], read(response["text"]), len(response["token_ids"]))
            for response in row["responses"][:n]
        ]
    return samples


def _contests(prompt: Mapping[str, Any], samples: Sequence[Sample]) -> list[Row]:
    """Every ordered pair of samples."""
    conversation = turns(prompt["messages"])
    pairs = itertools.permutations(samples, 2)
    return [Row(prompt["prompt"], ours.text, theirs.text, conversation) for ours, theirs in pairs]
