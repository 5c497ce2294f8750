"""Limits of time on a real Slurm: a job's own, which a step does not fit into, and the site's for ranks that are last.

The stages are fake ones; Slurm, the scripts and the step runner are real.
"""

TRAIN = "iter_1.train"
SHARDS = [f"iter_1.rollout.0000{shard}" for shard in range(4)]


def test_a_task_too_long_for_its_time_is_told_at_once_and_one_that_got_further_goes_on(fake, capsys):
    """Two tasks of two shards: one publishes its first shard before the limit's signal, the other nothing."""
    fake.behave(iter_1__rollout__00001="wait", iter_1__rollout__00002="wait!")
    cluster = ("stages.rollout.time=00:01:00", "signal_seconds=50", "shards_per_task=2")
    assert fake.submit("rollout.shards=4", *(f"cluster.{setting}" for setting in cluster)) == 0
    fake.wait(180)
    assert fake.history(SHARDS[0]) == ["start", "interrupted", "start", "finished"]
    assert [fake.is_published("rollout", 1, shard) for shard in range(4)] == [True, True, False, False]
    assert fake.history("iter_1.score.00000") == ["start", "finished"]
    assert fake.history(SHARDS[2]) == ["start", "gave_up"]
    assert fake.events(SHARDS[2])[-1].code == 2
    assert fake.history("iter_1.score.00002") == fake.history("iter_1.build_pairs") == []
    error = f"error: {SHARDS[2]} does not fit in time=00:01:00: raise cluster.stages.rollout.time"
    assert error in fake.status(capsys)[SHARDS[2]]["detail"]
    fake.stop_misbehaving()
    assert fake.submit("rollout.shards=4", "cluster.shards_per_task=2") == 0
    fake.wait()
    assert fake.is_published("evaluate")


def test_rank_0_may_publish_long_after_the_other_ranks_have_ended(fake):
    """A site's WaitTime has srun end what is left of a step whose first task has ended."""
    fake.behave(iter_1__train="last")
    cluster = ("gpus_per_node=2", "ranks_per_node=null", "launcher=srun")
    layout = ("parallel.tensor=2", "parallel.pipeline=1", "parallel.data=2", "train.micro_batch_size=1")
    assert fake.submit(*(f"cluster.{setting}" for setting in cluster), *layout) == 0
    fake.wait_for(TRAIN)
    fake.wait()
    assert fake.history(TRAIN) == ["start", "finished"]
    assert fake.is_published("evaluate")
