"""Score the responses of a run once more on the processor, in fp32 and in other batches.

`python -m nemo_sspo.doctor.oracle_on_host RUN`, in the rollout environment with no GPU visible; prints one JSON line.
"""

import json
import sys
from pathlib import Path

import numpy as np

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import ROLLOUTS, SCORES
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.runner.variables import set_defaults
from nemo_sspo.stages.sampling.score import ScoreSums, score_window

BATCH_TOKENS = 1024


def main(run: Path) -> None:
    """Print the largest and the mean difference of the win probabilities, and how many there are."""
    set_defaults("rollout")
    layout = RunLayout(run)
    experiment = Experiment.model_validate_json(layout.experiment.read_bytes())
    settings = experiment.oracle.model_copy(update={"precision": "float32", "batch_tokens": BATCH_TOKENS})
    prompts = ROLLOUTS.read(layout.artifact("rollout", 1, 0)).to_pylist()
    scored = SCORES.read(layout.artifact("score", 1, 0))
    again = score_window(prompts, load_oracle(settings), ScoreSums())
    first, second = (np.array(table.column("logits").to_pylist()) for table in (scored, again))
    apart = np.abs(sigmoid(first) - sigmoid(second))[:, ~np.eye(first.shape[1], dtype=bool)]
    print(json.dumps({"largest": float(apart.max()), "mean": float(apart.mean()), "rows": apart.size}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
