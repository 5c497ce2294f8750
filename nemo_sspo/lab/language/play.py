"""One run of self-play in a world: an arm, a judge's dial and a seed."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import LlamaForCausalLM

from nemo_sspo.lab.language.arms import Arm
from nemo_sspo.lab.language.judge import Judge
from nemo_sspo.lab.language.measures import gradient_noise, variety, win_rate
from nemo_sspo.lab.language.pairs import Sampled, pairs_of, true_targets
from nemo_sspo.lab.language.policy import Recipe, answer_of, sample, starting_policy
from nemo_sspo.lab.language.similarity import Similarities
from nemo_sspo.lab.language.training import gradients, train
from nemo_sspo.lab.language.world import Prompt, World


@dataclass(frozen=True)
class Size:
    """How much is sampled and trained."""

    iterations: int = 2
    prompts: int = 512
    """Of each iteration; no two iterations share one."""
    samples: int = 5
    held_out: int = 128
    held_out_samples: int = 16
    recipe: Recipe = field(default_factory=Recipe)


SMALL = Size(iterations=1, prompts=128, held_out=32, held_out_samples=8, recipe=Recipe(rows=4096, epochs=3))
"""Whether everything works, in a minute; too little to learn anything from."""


class Seed:
    """What all runs of a seed share: the world, the starting policy, and its responses to the held-out prompts."""

    def __init__(self, seed: int, size: Size, similarities: Similarities) -> None:
        self.world, self.size, self.similarities = World.draw(seed), size, similarities
        self.start = starting_policy(self.world, size.recipe)
        self.held_out = self.world.prompts[: size.held_out]
        self._start_texts = self._held_out_texts(self.start)
        self._true = Judge(self.world, 0.0)

    def play(self, arm: Arm, dial: float) -> list[dict[str, float]]:
        """Facts of each iteration."""
        model, judge, found = copy.deepcopy(self.start), Judge(self.world, dial), []
        for iteration in range(1, self.size.iterations + 1):
            begun = time.monotonic()
            facts = self._iteration(model, judge, arm, iteration)
            found.append({"iteration": iteration, **facts, **self._worth(model, judge)})
            found[-1]["seconds"] = round(time.monotonic() - begun, 1)
        return found

    def _iteration(self, model: LlamaForCausalLM, judge: Judge, arm: Arm, iteration: int) -> dict[str, float]:
        first = self.size.held_out + (iteration - 1) * self.size.prompts
        prompts = self.world.prompts[first : first + self.size.prompts]
        sampled = self._sampled(model, judge, prompts, iteration)
        truth = true_targets(sampled, self._true.logits(prompts, sampled.texts))
        pairs = pairs_of(sampled, arm, np.random.default_rng([self.world.seed, 4, iteration]))
        along = torch.stack(list(gradients(model, truth, Arm("truth")))).mean(0)
        noise = gradient_noise(gradients(model, pairs, arm), along)
        return pairs.facts | noise | train(model, pairs, arm, seed=self.world.seed * 100 + iteration)

    def _sampled(self, model: LlamaForCausalLM, judge: Judge, prompts: Sequence[Prompt], iteration: int) -> Sampled:
        generator = torch.Generator().manual_seed(self.world.seed * 100 + iteration)
        ids = sample(model, [prompt.text for prompt in prompts], self.size.samples, generator)
        texts = [[answer_of(response) for response in row] for row in ids]
        return Sampled(tuple(prompts), ids, texts, judge.logits(prompts, texts), self.similarities.of(texts))

    def _held_out_texts(self, model: LlamaForCausalLM) -> list[list[str]]:
        generator = torch.Generator().manual_seed(self.world.seed)
        ids = sample(model, [prompt.text for prompt in self.held_out], self.size.held_out_samples, generator)
        return [[answer_of(response) for response in row] for row in ids]

    def _worth(self, model: LlamaForCausalLM, judge: Judge) -> dict[str, float]:
        """Win rates against the starting policy on the held-out prompts, by truth and by the judge, and variety."""
        ours = self._held_out_texts(model)
        return {
            "true_win_rate": win_rate(self._true, self.held_out, ours, self._start_texts),
            "judged_win_rate": win_rate(judge, self.held_out, ours, self._start_texts),
            **variety(ours),
        }
