"""Limits of time on a real Slurm: a job's own, which a step does not fit into, and the site's for ranks that are last.

The stages are fake ones; Slurm, the scripts and the step runner are real.
"""

TRAIN = "iter_1.train"


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
