"""The whole configuration tree on one screen."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.cluster import Cluster
from nemo_sspo.config.earlier import tree_of_today
from nemo_sspo.config.encoders import Encoder
from nemo_sspo.config.engines import Engine
from nemo_sspo.config.gates import Gate
from nemo_sspo.config.losses import Loss
from nemo_sspo.config.oracles import Oracle
from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.repulsions import EuclideanRepulsion, Repulsion
from nemo_sspo.config.roles import Knob, SourcePath
from nemo_sspo.config.stages import Data, Evaluation, Further, Judging, Pairs, Parallel, Rollout, Selection, Train
from nemo_sspo.config.trainers import Trainer

_MOST_TASKS = 100_000


class Experiment(Frozen):
    name: str
    """Name of the run: its directory under `runs_dir`."""
    runs_dir: str = "runs"
    """Directory that holds the runs."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of everything random in the run."""
    iterations: int = Field(3, ge=1, le=1000)
    """Self-play iterations (papers: 3)."""
    policy: Annotated[str, SourcePath()]
    """The model to align: a Hugging Face directory or hub id with weights, tokenizer and chat template."""
    prompts: Annotated[str | tuple[str, ...], SourcePath()]
    """Prompts: JSON Lines (also .gz), Parquet, Arrow or CSV with `prompt`, `messages`, `conversations` or `instruction`
    (and `system`), a directory of such files, or a Hugging Face data set id. A list of them gives each iteration its
    own, in their order; `data.columns` names fields that are called otherwise."""
    data: Data = Data()
    further: Further = Further()
    rollout: Rollout = Rollout()
    engine: Engine
    oracle: Oracle
    encoder: Encoder
    judging: Judging = Judging()
    pairs: Pairs = Pairs()
    gate: Gate
    loss: Loss
    repulsion: Repulsion = EuclideanRepulsion()
    trainer: Trainer = "auto"
    """What reads, trains and writes the policy: `nemo` (NeMo's model class and trainer), `core` (megatron-core alone),
    or `auto`: NeMo where the training environment has it, else megatron-core."""
    train: Train = Train()
    parallel: Annotated[Parallel, Knob()] = Parallel()
    precision: Precision
    selection: Selection = Selection()
    evaluation: Evaluation = Evaluation()
    cluster: Cluster

    @model_validator(mode="before")
    @classmethod
    def _of_today(cls, settings: Any) -> Any:
        return tree_of_today(settings) if isinstance(settings, dict) else settings

    @field_validator("name")
    @classmethod
    def _is_a_directory_and_a_word(cls, name: str) -> str:
        """It is also part of Slurm's job names."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                f"{name!r} is no name of a run: up to 100 letters, digits and . _ -, the first a letter or digit; a "
                "directory is given with runs_dir=..."
            )
        return name

    @property
    def prompt_sources(self) -> tuple[str, ...]:
        """The files, directories or data sets of prompts: one for all iterations, or one for each."""
        return (self.prompts,) if isinstance(self.prompts, str) else self.prompts

    @property
    def first_iterations(self) -> int:
        """Iterations that the prompts are divided among; those of a run that goes on come after them."""
        return min(self.further.after or self.iterations, self.iterations)

    @property
    def run_dir(self) -> Path:
        """Directory of the run's artifacts."""
        return Path(self.runs_dir) / self.name

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        if self.iterations * self.rollout.shards > _MOST_TASKS:
            raise ValueError(
                f"iterations={self.iterations} x rollout.shards={self.rollout.shards} are more than {_MOST_TASKS} tasks"
            )
        from_list = self.iterations if self.further.prompts is None else self.first_iterations
        if not isinstance(self.prompts, str) and len(self.prompts) < from_list:
            raise ValueError(
                f"prompts is a list of {len(self.prompts)} for iterations={self.iterations}; give one for each "
                "iteration, or one source for all of them"
            )
        estimating, k = self.pairs.estimated_from, self.rollout.samples_per_prompt
        if estimating is not None and self.rollout.source is None and estimating > k:
            raise ValueError(f"pairs.estimated_from={estimating} is more than rollout.samples_per_prompt={k}")
        replicas = self.parallel.data * self.train.micro_batch_size
        if self.train.global_batch_size % replicas:
            raise ValueError(
                f"train.global_batch_size={self.train.global_batch_size} is not a multiple of "
                f"parallel.data x train.micro_batch_size = {replicas}"
            )
        if self.train.reference_source == "rollout_checked" and self.train.reference == "base":
            raise ValueError(
                "train.reference_source=rollout_checked takes the log-probs of the policy that sampled the responses, "
                "which is train.reference=previous, not base"
            )
        if self.train.share_prompt and not self.train.packing:
            raise ValueError("train.share_prompt lays pairs out in packed rows: set train.packing=true")
        return self
