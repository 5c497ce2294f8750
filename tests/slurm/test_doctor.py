"""What doctor reads of a real Slurm: its own words for limits, partitions and the lack of accounting."""

from nemo_sspo.config.load import load_experiment
from nemo_sspo.doctor.host.slurm import slurm_checks
from tests.doctor.by_name import by_name, wrong


def checks(*overrides):
    settings = ("experiment=quickstart", "cluster=slurm_cpu", "rollout.shards=20", *overrides)
    return slurm_checks(load_experiment(settings))


def test_a_real_controllers_limits(on_cluster):
    assert wrong(checks()) == []
    found = by_name(checks())
    assert found["Slurm"].measured[0].isdigit()
    assert int(found["MaxArraySize"].measured) > 1000
    assert found["submitted jobs"].measured.endswith("(MaxJobCount)")
    (partition,) = (check for name, check in found.items() if name.startswith("partition"))
    assert (partition.name, partition.measured) == ("partition main", "UP, 4 nodes, at most 1-00:00:00")
    assert found["PreemptParameters"].measured == "no preemption here"
    assert found["WaitTime"].measured.startswith("2 ")


def test_limits_that_a_run_meets(on_cluster):
    assert ("partition main", "failed") in wrong(checks("cluster.time='2-00:00:00'"))
    on_cluster.run("scontrol", "update", "partitionname=main", "state=down")
    try:
        assert wrong(checks()) == [("partition main", "failed")]
    finally:
        on_cluster.run("scontrol", "update", "partitionname=main", "state=up")
    assert ("partition nowhere", "failed") in wrong(checks("cluster.partition=nowhere"))
