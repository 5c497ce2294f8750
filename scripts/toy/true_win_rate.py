"""Win rates of a quickstart run by the world's own truth rather than its oracle: how much of the gain is real.

python -m scripts.toy.true_win_rate runs/quickstart
"""

import sys
from pathlib import Path

import numpy as np

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.stages.evaluation.bootstrap import bootstrap_mean
from scripts.toy.quality import true_preference


def answers(layout: RunLayout, policy: int) -> dict[str, list[str]]:
    """A policy's answers to the held-out prompts."""
    table = ROLLOUTS.read(layout.artifact("rollout_held_out", policy, 0), ["prompt", "responses"])
    return {row["prompt"]: [response["text"] for response in row["responses"]] for row in table.to_pylist()}


def true_win_rate(layout: RunLayout, policy: int) -> Interval:
    """True win rate of a policy against the base, with its 95 % interval over prompts."""
    ours, base = answers(layout, policy), answers(layout, 0)
    wins = [
        np.mean([true_preference(prompt, a, b) for a in ours[prompt] for b in base[prompt]]) for prompt in sorted(base)
    ]
    return bootstrap_mean(np.array(wins), samples=2000, confidence=0.95, seed=0)


def main(run: str) -> None:
    """Print one line per iteration that has been evaluated."""
    layout = RunLayout(Path(run))
    policy = 1
    while layout.artifact("rollout_held_out", policy, 0).is_dir():
        mean, low, high = true_win_rate(layout, policy)
        print(f"iteration {policy}: true win rate vs base {mean:.3f} [{low:.3f}, {high:.3f}]")
        policy += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
