"""NeMo as a trainer: see `megatron/binding.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nemo_sspo.megatron.binding import Binding, Observer
from nemo_sspo.megatron.jobs import ReferenceJob, TrainingJob
from nemo_sspo.megatron.nemo import convert
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.reference import reference_rank
from nemo_sspo.megatron.nemo.training import train_rank
from nemo_sspo.megatron.nemo.versions import require_nemo


class _Nemo:
    def require_versions(self) -> None:
        require_nemo()

    def refuse(self, job: ReferenceJob | TrainingJob) -> None:
        training_config(job.hf_dir, job.parallel, job.precision, job.train)

    def import_policy(self, policy_dir: Path, weights: Path, hf_dir: Path, dtype: torch.dtype) -> int:
        return convert.import_policy(policy_dir, weights, hf_dir, dtype)

    def export_policy(self, weights: Path, config_dir: Path, hf_dir: Path, dtype: torch.dtype) -> int:
        return convert.export_policy(weights, config_dir, hf_dir, dtype)

    def reference_logps(self, job: ReferenceJob) -> Tensor:
        return reference_rank(job)

    def train(self, job: TrainingJob, observers: Sequence[Observer]) -> None:
        train_rank(job, observers)


BINDING: Binding = _Nemo()
