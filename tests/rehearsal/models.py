"""First and last rank of every model of conf/model with S-SPPO and with DPO, beside the presets' own.

``python -m tests.rehearsal -m tests.rehearsal.models [MODEL ...]`` writes their ledgers; `make rehearse` runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product

from nemo_sspo.config.load import load_experiment
from nemo_sspo.estimate.rank import StepPairs
from tests.published_models import PUBLISHED
from tests.rehearsal.case import Case, case_of
from tests.rehearsal.cases import MODELS, PRESETS
from tests.rehearsal.committed import LEDGERS, commit, committed, differences
from tests.rehearsal.run import rehearse
from tests.rehearsal.table import row

OF_MODELS = LEDGERS / "models"
METHODS = ("s-sppo", "iterative-dpo")
_LENGTHS = {"prompt": 1024, "response": 1024}


def model_cases(models: Sequence[str] = ()) -> list[Case]:
    """A step has 2 x PP microbatches, with rows as long as they may be. Presets with S-SPPO are `preset_cases`."""
    configs = MODELS | PUBLISHED
    chosen = models or (*PRESETS, *PUBLISHED)
    return [
        case
        for model, method in product(chosen, METHODS)
        if not (model in PRESETS and method == "s-sppo")
        for case in _first_and_last(model, method, configs[model])
    ]


def _first_and_last(model: str, method: str, config: dict[str, object]) -> list[Case]:
    experiment = load_experiment([f"model={model}", f"method={method}", "prompts=p"])
    of_a_microbatch = 2 if experiment.train.packing else experiment.train.micro_batch_size
    count = 2 * experiment.parallel.pipeline * of_a_microbatch * experiment.parallel.data
    case = case_of(experiment, config, StepPairs(count, **_LENGTHS))
    return [case, case.at(case.parallel.world_size - 1)]


def main(models: Sequence[str]) -> None:
    """Rehearse, print a row of each, and what differs from the committed ledger."""
    for case in model_cases(models):
        known, found = committed(case.key, OF_MODELS), rehearse(case)
        print(row(found), end="", flush=True)
        for line in differences(known, found) if known is not None else []:
            print(f"{case.key}: {line}")
        commit(found, OF_MODELS)


if __name__ == "__main__":
    main(sys.argv[1:])
