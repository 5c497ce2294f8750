"""What is rehearsed: one rank of a training, its layout and the size of its pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.config.binding import bind
from nemo_sspo.config.losses import DpoLoss, SppoLoss
from nemo_sspo.config.precisions import Bf16Precision, Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.estimate.rank import StepPairs, TrainingRank
from nemo_sspo.megatron.models.families import FAMILIES
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.shape import Shape

STEPS = 2
"""Adam's state exists from the second step on."""


LOSSES = {"sppo": SppoLoss(), "dpo": DpoLoss()}


@dataclass(frozen=True)
class Case:
    """One rank of one training."""

    name: str
    model: Mapping[str, Any]
    """The policy's ``config.json``."""
    parallel: Parallel
    train: Train
    pairs: StepPairs
    """Of one step."""
    rank: int = 0
    precision: Precision = field(default_factory=Bf16Precision)
    loss: str = "sppo"
    checkpoint: Path | None = None
    """An imported policy (``nemo/``); without one weights are there from the start, and nothing is saved."""
    trainer: str = "nemo"

    @property
    def key(self) -> str:
        """Name in files and tables."""
        return f"{self.name}.rank_{self.rank}"

    def at(self, rank: int) -> Case:
        return replace(self, rank=rank)

    @property
    def estimated(self) -> TrainingRank:
        """As the estimate takes it."""
        defaults = FAMILIES[self.model["model_type"]].defaults
        shape = Shape.of(HFConfig({**defaults, **self.model}, Path(self.name)))
        separable = LOSSES[self.loss].separable
        return TrainingRank(
            shape,
            self.parallel,
            self.train,
            self.precision,
            separable,
            self.pairs,
            self.rank,
            trainer=self.trainer,
        )


def case_of(
    experiment: Any,
    model: Mapping[str, Any] | Path,
    pairs: StepPairs | None = None,
    *,
    rank: int = 0,
    checkpoint: Path | None = None,
) -> Case:
    """The training of an `Experiment`.

    `model`: the policy's ``config.json``, or the folder of a Hugging Face model. `pairs`: of one step; as many as the
    experiment's global batch, of 1,024 + 1,024 tokens, where nothing else is said.
    """
    if isinstance(model, Path):
        model = json.loads((model / "config.json").read_text())
    pairs = pairs or StepPairs(experiment.train.global_batch_size, 1024, 1024)
    return Case(
        experiment.name,
        model,
        experiment.parallel,
        experiment.train.model_copy(update={"global_batch_size": pairs.count, "train_epochs": 1}),
        pairs,
        rank,
        experiment.precision,
        experiment.loss.kind,
        checkpoint,
        "core" if experiment.trainer == "core" else "nemo",
    )


def job_of(case: Case, directory: Path) -> Any:
    """The project's own job of this case, with what it reads and writes below `directory`."""
    from nemo_sspo.megatron.batches.pairs import PairTable
    from nemo_sspo.megatron.jobs import TrainingJob
    from nemo_sspo.megatron.loss.loss import PreferenceObjective
    from nemo_sspo.objective import losses
    from nemo_sspo.objective.repulsion import euclidean, repulsion_weight

    loss = LOSSES[case.loss]
    hf = directory / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    (hf / "config.json").write_text(json.dumps(dict(case.model)))
    pairs, reference = tables(case)
    return TrainingJob(
        pairs=PairTable(pairs, reference),
        weights=case.checkpoint or directory / "no_checkpoint",
        hf_dir=hf,
        output=directory / "output",
        scratch=directory / "scratch",
        logs=directory / "logs",
        run_name=case.name,
        train=case.train,
        parallel=case.parallel,
        precision=case.precision,
        objective=PreferenceObjective(bind(loss, losses.LOSSES), euclidean, "last", separable=loss.separable),
        repulsion_weight=partial(repulsion_weight, weight=1.0, schedule="constant"),
        seed=1,
        progress=Progress(None),
    )


def tables(case: Case) -> tuple[pa.Table, pa.Table]:
    """Pairs and reference log-probs of all steps."""
    generator = np.random.default_rng(0)
    vocabulary = case.model["vocab_size"]

    def ids(count: int) -> list[int]:
        return generator.integers(0, vocabulary, count).tolist()

    numbers = range(case.pairs.count * STEPS)
    pairs = [
        {
            "pair_id": f"pair{number}",
            "prompt_id": f"prompt{number}",
            "prompt_token_ids": ids(case.pairs.prompt),
            "chosen_id": "c",
            "rejected_id": "r",
            "chosen_token_ids": ids(case.pairs.response),
            "rejected_token_ids": ids(case.pairs.response),
            "p_chosen": 0.8,
            "p_rejected": 0.3,
            "similarity": 0.1,
            "target_chosen": 0.8,
            "target_rejected": 0.2,
            "target_pair": 0.8,
            "margin_before": 0.5,
            "margin_after": 0.4,
        }
        for number in numbers
    ]
    reference = [
        {
            "pair_id": f"pair{number}",
            "chosen_logp": -10.0,
            "rejected_logp": -12.0,
            "chosen_tokens": case.pairs.response,
            "rejected_tokens": case.pairs.response,
        }
        for number in numbers
    ]
    return PAIRS.of(pairs), REFERENCE.of(reference)
