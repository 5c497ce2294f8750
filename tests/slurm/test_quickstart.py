"""The quickstart on Slurm: real vLLM, PairRM and NeMo, trained by two nodes over gloo, undisturbed and disturbed."""

import shutil

import pytest

from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.store import open_artifact
from tests.slurm.cluster import REPOSITORY, SlurmCluster
from tests.slurm.driver import SlurmRun
from tests.waiting import wait_until

TRAIN, SHARD_1 = "iter_1.train", "iter_1.rollout.00001"
EARLY = ("prompts", "iter_0", *(f"iter_1/{stage}/shard_00000" for stage in ("rollout", "score", "embed")))
CUT_SMALL = (
    "data.prompts_per_iteration=16",
    "data.held_out_count=8",
    "train.global_batch_size=8",
    "train.train_epochs=10",
    "train.loggers=[]",
    "cluster.train.variables.GLOO_SOCKET_IFNAME=lo",
)

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "assets" / "toy" / "manifest.json").exists(), reason="`make assets` makes the models of the toy"
)


def real_run(slurm: SlurmCluster, folder, name: str) -> SlurmRun:
    return SlurmRun(slurm, folder / name, CUT_SMALL, folder)


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    """A run that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, slurm.environment[name])
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.chdir(REPOSITORY)
        run = real_run(slurm, tmp_path_factory.mktemp("runs"), "undisturbed")
        assert run.submit() == 0
        run.wait(1200)
        run.cancel()
    return run


@pytest.mark.timeout(1500)
def test_the_whole_loop_with_two_nodes_training(on_cluster, undisturbed):
    if not undisturbed.is_published("evaluate"):
        print(undisturbed.log(TRAIN))
    assert undisturbed.is_published("evaluate")
    assert undisturbed.history(TRAIN) == ["start", "finished"]
    counts = open_artifact(undisturbed.layout.artifact("train", 1)).manifest.counts
    assert counts["steps"] == 20
    assert counts["step1_loss"] == pytest.approx(counts["step1_closed_form"], rel=1e-5)


@pytest.mark.timeout(1500)
def test_disturbed_in_every_way_it_ends_with_equal_artifacts(on_cluster, undisturbed):
    """A rollout task is told to stop; training is told to stop and saves; its next attempt loses a node.

    What shard 0 made is there from the start, so that Slurm is asked for shard 1 alone.
    """
    folder = undisturbed.layout.root.parent
    run = real_run(on_cluster, folder, "disturbed")
    for early in EARLY:
        shutil.copytree(undisturbed.layout.root / early, run.layout.root / early)
    assert run.submit() == 0
    on_cluster.tell_to_stop(run.wait_for(SHARD_1))
    job = wait_for_step(run, 3, 0)
    on_cluster.tell_to_stop(job)
    wait_for_step(run, 6, 1)
    on_cluster.lose_node(on_cluster.nodes_of(job)[1])
    run.wait(900)
    assert run.history(SHARD_1) == ["start", "interrupted", "start", "finished"]
    assert run.history(TRAIN)[:3] == ["start", "interrupted", "start"]
    assert run.history(TRAIN)[-2:] == ["start", "finished"]
    assert "told to stop; saved after step" in run.log(TRAIN)
    assert run.digests() == undisturbed.digests()


def wait_for_step(run: SlurmRun, step: int, restart: int) -> str:
    """Until training has taken an optimizer step; its job's id."""
    job = run.wait_for(TRAIN, restart=restart, seconds=300)
    wait_until(lambda: read_progress(run.layout.progress(TRAIN))["done"] >= step, 60, f"step {step} of training")
    return job
