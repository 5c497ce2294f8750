"""Small models and pairs, and one call that trains on forked ranks by any trainer binding."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM
from typing_extensions import override

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.tables import PAIRS, REFERENCE
from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.states import states
from nemo_sspo.megatron.jobs import ReferenceJob, TrainingJob
from nemo_sspo.megatron.loss.loss import PreferenceObjective
from nemo_sspo.megatron.observers.standard import standard_observers
from nemo_sspo.megatron.observers.step_log import read_log
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError, run_forked
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean, repulsion_weight

VOCAB = 200  # not a multiple of 128: the padding has something to do
SECONDS = 120
ETA = 30.0


def write_policy(directory: Path, model_type: str, **changes: Any) -> Path:
    """A small random Hugging Face model of a family, with grouped queries, in fp32 unless told otherwise."""
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,  # 4 x 24 is not the hidden size
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    config = AutoConfig.for_model(model_type, **settings | changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    gain = 0.0 if model_type == "gemma2" else 1.0  # its norms multiply with 1 + weight
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that none can be mixed up unnoticed
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (gain if parameter.dim() == 1 else 0.0))
    model.save_pretrained(directory)
    return directory


def make_pairs(count: int, *, seed: int = 0) -> pa.Table:
    """Pairs of random tokens and random targets, responses of unequal length."""
    generator = np.random.default_rng(seed)

    def ids(low: int, high: int) -> list[int]:
        return generator.integers(0, VOCAB, generator.integers(low, high)).tolist()

    rows = [
        {
            "pair_id": f"pair{number}",
            "prompt_id": f"prompt{number}",
            "prompt_token_ids": ids(2, 7),
            "chosen_id": "c",
            "rejected_id": "r",
            "chosen_token_ids": ids(1, 12),
            "rejected_token_ids": ids(1, 12),
            "p_chosen": 0.8,
            "p_rejected": 0.3,
            "similarity": 0.1,
            "target_chosen": float(generator.uniform(0.5, 1.0)),
            "target_rejected": float(generator.uniform(0.0, 0.5)),
            "target_pair": 0.8,
            "margin_before": 0.5,
            "margin_after": 0.4,
        }
        for number in range(count)
    ]
    return PAIRS.of(rows)


def make_reference(logps_P2: torch.Tensor) -> pa.Table:
    """The reference table of `make_pairs`."""
    rows = [
        {
            "pair_id": f"pair{number}",
            "chosen_logp": chosen,
            "rejected_logp": rejected,
            "chosen_tokens": 1,
            "rejected_tokens": 1,
        }
        for number, (chosen, rejected) in enumerate(logps_P2.tolist())
    ]
    return REFERENCE.of(rows)


def reference_job(pairs: pa.Table, imported: Path, parallel: Parallel) -> ReferenceJob:
    """What a rank of a layout computes the reference log-probs of."""
    return ReferenceJob(
        PairTable(pairs, None),
        imported / "nemo",
        imported / "hf",
        Train(global_batch_size=8, micro_batch_size=2),
        parallel,
        Fp32Precision(),
        Progress(None),
    )


def reference(binding: Binding, pairs: pa.Table, imported: Path, parallel: Parallel) -> torch.Tensor:
    """Reference log-probs [N, 2] computed in a layout."""
    job = reference_job(pairs, imported, parallel)
    return run_forked(lambda: binding.reference_logps(job), parallel.world_size, timeout=SECONDS)[0]


def job(pairs: PairTable, imported: Path, output: Path, parallel: Parallel, **train: Any) -> TrainingJob:
    """Two epochs of S-SPPO with repulsion, from the imported checkpoint."""
    settings = {"learning_rate": 1e-3, "global_batch_size": 8, "micro_batch_size": 2, "train_epochs": 2, "loggers": ()}
    return TrainingJob(
        pairs=pairs,
        weights=imported / "nemo",
        hf_dir=imported / "hf",
        output=output / "nemo",
        scratch=output / "scratch",
        logs=output / "logs",
        run_name="test",
        train=Train(**settings | train),
        parallel=parallel,
        precision=Fp32Precision(),
        objective=PreferenceObjective(partial(sppo, eta=ETA), euclidean, "last", separable=True),
        repulsion_weight=partial(repulsion_weight, weight=1.0, schedule="constant"),
        seed=3,
        progress=Progress(None),
    )


def train(binding: Binding, training: TrainingJob, *others: Observer) -> list[dict[str, Any]]:
    """Train on forked ranks, `others` observing after the product's observers; the metrics of every step."""

    def on_rank() -> None:
        binding.train(training, [*standard_observers(training), *others])

    run_forked(on_rank, training.parallel.world_size, timeout=SECONDS)
    return read_log(training.metrics_file)


class DieAfter(Observer):
    """Every rank dies when the product's observers have seen a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    @override
    def on_step(self, training: LiveTraining) -> None:
        if training.step == self._step:
            os._exit(9)


class SignalAfter(Observer):
    """One rank alone gets a stop signal, between a step and the next."""

    def __init__(self, step: int, rank: int) -> None:
        self._step = step
        self._rank = rank

    @override
    def on_step(self, training: LiveTraining) -> None:
        if training.step == self._step and dist.get_rank() == self._rank:
            os.kill(os.getpid(), signal.SIGUSR1)


def killed_after_a_state(binding: Binding, training: TrainingJob) -> None:
    """Train until step 4 with a state saved at step 3, then die."""
    with pytest.raises(ForkedRanksError):
        train(binding, training, DieAfter(4))
    assert states(training.scratch)[0].name == "step_3"


def exported(binding: Binding, checkpoint: Path, imported: Path, directory: Path) -> Path:
    """The Hugging Face model that a checkpoint is exported to."""
    binding.export_policy(checkpoint, imported / "hf", directory / "hf", torch.float32)
    return directory / "hf"
