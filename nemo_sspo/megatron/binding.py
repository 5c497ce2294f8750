"""What a trainer binding gives the stages: a folder beside `megatron/nemo`, and a line of `BINDINGS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from nemo_sspo.config.trainers import Trainer
from nemo_sspo.megatron.installed import named_trainer
from nemo_sspo.megatron.jobs import ReferenceJob, StepResult, TrainingJob
from nemo_sspo.megatron.models.finite import StepPairs


class LiveTraining(Protocol):
    """A training that runs, as an `Observer` sees it between two optimizer steps."""

    @property
    def trainer(self) -> str:
        """Name of the binding: its states are no other's."""

    @property
    def step(self) -> int:
        """Optimizer steps done, those of earlier attempts included."""

    @property
    def result(self) -> StepResult:
        """Of the last step. Ask for it once a step: a trainer may make the host wait for the GPU to answer."""

    @property
    def config(self) -> TransformerConfig:
        """The policy's shape."""

    @property
    def step_pairs(self) -> StepPairs:
        """The pairs of the last step on this rank, to name the one whose values are not finite."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Of all chunks of this rank, frozen ones included."""

    def save_weights(self, directory: Path) -> None:
        """Write the policy, adapters merged, as `checkpoints.weights` lays it out. Collective; changes nothing."""

    def save_state(self, directory: Path, written: Callable[[], None]) -> None:
        """Write what `Binding.train` resumes from, now or in the background, then call `written` on every rank.

        Collective. `directory` exists, and no earlier state is still being written.
        """

    def finish_saving(self) -> None:
        """Wait until `written` of the last state has been called. Collective."""


class Observer:
    """Called on every rank before the first step, after each step and at the end. A subclass takes what it needs."""

    def on_start(self, training: LiveTraining) -> None:
        """Before the first step of this attempt; what it resumes from is loaded."""

    def on_step(self, training: LiveTraining) -> None:
        """After an optimizer step. What it raises ends the training; where others wait, it must raise on every rank."""

    def on_end(self, training: LiveTraining, error: BaseException | None) -> None:
        """After the last step, or once `error` has ended the training, also when another observer's end raised it."""


class Binding(Protocol):
    """Reads, runs and writes policies. `reference_logps` and `train` run on every rank of the job's layout."""

    def require_versions(self) -> None:
        """Raise UserError for packages of versions that were never tested together."""

    def refuse(self, job: ReferenceJob | TrainingJob) -> None:
        """Raise UserError for versions, a family, a layout or a precision that cannot run. Before any rank starts."""

    def import_policy(self, policy_dir: Path, weights: Path, hf_dir: Path, dtype: torch.dtype) -> int:
        """Hugging Face directory -> weights and side files, bit for bit. Returns the number of parameters."""

    def export_policy(self, weights: Path, config_dir: Path, hf_dir: Path, dtype: torch.dtype) -> int:
        """The way back; `config_dir` gives the side files. Returns the number of parameters."""

    def reference_logps(self, job: ReferenceJob) -> Tensor:
        """Summed log-probs [pairs, 2] (chosen, rejected), fp32, on every rank, by the forward pass of `train`."""

    def train(self, job: TrainingJob, observers: Sequence[Observer]) -> None:
        """Take the steps of `job.batches` that the newest whole state below `job.scratch` has not taken.

        Returns on a rank when all ranks are done.
        """


BINDINGS = {
    "nemo": "nemo_sspo.megatron.nemo.binding:BINDING",
    "core": "nemo_sspo.megatron.core.binding:BINDING",
}
"""Where each choice of `trainer` lies."""


def binding(trainer: Trainer) -> Binding:
    """What a setting of `trainer` means here; no other binding is imported.

    Raises UserError where the environment has none.
    """
    module, _, attribute = BINDINGS[named_trainer(trainer)].partition(":")
    return cast(Binding, getattr(import_module(module), attribute))
