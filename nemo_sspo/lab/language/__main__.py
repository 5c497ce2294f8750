"""Plays the runs of a study, in the environment with torch and the encoder: `python -m nemo_sspo.lab.language`.

Prints a line a run. Each is on the disk as soon as it is done; a second call goes on.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.lab.language import world
from nemo_sspo.lab.language.arms import ARMS, BETA
from nemo_sspo.lab.language.plan import runs
from nemo_sspo.lab.language.play import SMALL, Seed, Size
from nemo_sspo.lab.language.results import Run, SeedFile
from nemo_sspo.lab.language.similarity import Similarities
from nemo_sspo.lab.language.training import TRAIN
from nemo_sspo.lab.language.world import all_sentences

_SHOWN = ("true_win_rate", "judged_win_rate", "wording_entropy", "alignment")


def main() -> None:
    """Play what is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # equal sums wherever it runs; two processes share two cores
    size, encoder = SMALL if options.small else Size(), SentenceEncoder(device="cpu")
    settings = settings_of(size, encoder)
    similarities = Similarities(encoder)
    for number in range(options.first, options.last + 1):
        file = SeedFile(options.output, number, settings)
        planned = runs(number, small=options.small)
        missing = [(arm, dial) for arm, dial in planned if (arm.name, dial) not in file.done]
        if not missing:
            continue
        print(f"seed {number}: teaches a policy", flush=True)
        seed = Seed(number, size, similarities)
        for arm, dial in missing:
            begun = time.monotonic()
            run = Run(arm.name, dial, number, seed.play(arm, dial))
            file.add(run)
            said = " ".join(f"{name}={run.iterations[-1][name]:.3f}" for name in _SHOWN)
            print(f"seed {number}, {arm.name}, dial {dial:g}: {said} ({time.monotonic() - begun:.0f} s)", flush=True)


def settings_of(size: Size, encoder: SentenceEncoder) -> dict[str, Any]:
    """What the numbers depend on; of the arms and the worlds a digest."""
    worlds = [world.UTILITY, world.CYCLE, world.GARBLED, world.HABIT, BETA, *map(str, all_sentences())]
    arms = {
        name: [_described(arm.loss), _described(arm.gate), _described(arm.repulsion), arm.control]
        for name, arm in ARMS.items()
    }
    digest = hashlib.blake2b(json.dumps([worlds, arms], sort_keys=True).encode(), digest_size=8).hexdigest()
    return {"size": asdict(size), "train": TRAIN.model_dump(mode="json"), "encoder": encoder.path, "arms": digest}


def _described(setting: Any) -> Any:
    return setting if isinstance(setting, str) else setting.model_dump(mode="json")


if __name__ == "__main__":
    main()
