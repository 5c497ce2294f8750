"""Ranks are counted by what started them, whatever scheduler stands around them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import pyarrow as pa
import torch

from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.recipe import trainer
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.megatron.worlds import SECONDS, job, reference, train

# What Lightning would take its ranks from: a task of `srun`, `sbatch --ntasks=8`, and a shell of `salloc`.
SLURM = {
    "one task": "JOB_ID=77 NTASKS=1 NPROCS=1 PROCID=0 LOCALID=0 NODEID=0 NNODES=1 JOB_NAME=make JOB_NODELIST=localhost",
    "eight tasks": "JOB_ID=77 NTASKS=8 NPROCS=8 PROCID=0 LOCALID=0 NODEID=0 NNODES=1 JOB_NAME=make NODELIST=localhost",
    "allocation": "JOB_ID=77 NTASKS=1 NNODES=1 JOB_NAME=zsh NODELIST=localhost",
}


@pytest.fixture(params=SLURM)
def inside_slurm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SLURM[request.param].split():
        name, value = variable.split("=")
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.usefixtures("inside_slurm")
def test_every_rank_knows_its_place() -> None:
    def place() -> tuple[int, ...]:
        with nemo_cpu_runtime():
            built = trainer(Parallel(data=2), Fp32Precision(), max_steps=1, callbacks=[])
        environment = built.strategy.cluster_environment
        return environment.global_rank(), environment.local_rank(), environment.world_size(), built.node_rank

    assert run_forked(place, 2, timeout=SECONDS) == [(0, 0, 2, 0), (1, 1, 2, 0)]


@pytest.mark.parametrize("inside_slurm", ["one task"], indirect=True)
@pytest.mark.usefixtures("inside_slurm")
def test_two_replicas_in_a_slurm_task_train_all_pairs(
    binding: Binding,
    supervised: PairTable,
    pairs: pa.Table,
    imported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else both are rank 0 of 1, train the same half of the pairs and write every line of the log twice."""
    inside = train(binding, job(supervised, imported, tmp_path / "inside", Parallel(data=2), train_epochs=1))
    assert [line["pairs"] for line in inside] == [8, 8, 4]
    computed = reference(binding, pairs, imported, Parallel(data=2))
    monkeypatch.undo()
    assert inside == train(binding, job(supervised, imported, tmp_path / "outside", Parallel(data=2), train_epochs=1))
    assert torch.equal(computed, reference(binding, pairs, imported, Parallel(data=2)))
