"""Slurm's answers, played: each limit that a run would meet is a finding, and a site without Slurm has none."""

import pytest

from nemo_sspo.doctor.host.slurm import seconds_of, slurm_checks
from tests.doctor.by_name import by_name, wrong

CONFIG = {
    "MaxArraySize": "1001",
    "MaxJobCount": "10000",
    "PreemptMode": "REQUEUE",
    "PreemptParameters": "send_user_signal",
    "PreemptType": "preempt/partition_prio",
    "SLURM_VERSION": "23.11.4",
    "WaitTime": "0 sec",
}
PARTITION = {
    "PartitionName": "batch",
    "Default": "YES",
    "GraceTime": "120",
    "MaxNodes": "UNLIMITED",
    "MaxTime": "1-00:00:00",
    "PreemptMode": "REQUEUE",
    "State": "UP",
    "TotalNodes": "16",
}


@pytest.fixture
def site(program):
    """A Slurm that answers with these settings."""

    def play(config=None, partition=None, limits=""):
        shown = "\n".join(f"{name:<24}= {value}" for name, value in (CONFIG | (config or {})).items())
        line = " ".join(f"{name}={value}" for name, value in (PARTITION | (partition or {})).items())
        program("scontrol", f"case $2 in config) printf '%s\\n' '{shown}';; partition) echo '{line}';; esac")
        program("sacctmgr", f"case $4 in assoc) echo '{limits}';; esac" if limits else "exit 1")

    return play


@pytest.fixture
def run(experiment):
    def load(*overrides):
        return experiment("cluster=slurm_pyxis", "rollout.shards=100", "precision=bf16", *overrides)

    return load


def test_a_sound_site(site, run):
    site()
    assert wrong(slurm_checks(run())) == []
    found = by_name(slurm_checks(run()))
    assert found["MaxArraySize"].bound == ">= 100, the widest array"
    assert found["partition batch"].measured == "UP, 16 nodes, at most 1-00:00:00"
    assert found["WaitTime"].measured == "0 sec; jobs of a run have srun --wait=0"


@pytest.mark.parametrize(
    ("fault", "name", "verdict", "advice"),
    [
        ({"config": {"MaxArraySize": "64"}}, "MaxArraySize", "failed", "raise cluster.shards_per_task=1"),
        ({"config": {"MaxJobCount": "200"}}, "submitted jobs", "failed", "--iterations 1"),
        ({"limits": "team||300|"}, "submitted jobs", "failed", "--iterations 1"),
        ({"partition": {"State": "DRAIN"}}, "partition batch", "failed", "it is DRAIN"),
        ({"partition": {"MaxTime": "02:00:00"}}, "partition batch", "failed", "lower cluster.stages."),
        ({"partition": {"PartitionName": "h100"}}, "partition batch", "failed", "cluster.partition to one of h100"),
        ({"config": {"PreemptParameters": "(null)"}}, "PreemptParameters", "warning", "send_user_signal"),
        ({"partition": {"PreemptMode": "CANCEL"}}, "PreemptParameters", "warning", "nemo-sspo resume RUN"),
    ],
)
def test_a_planted_limit(site, run, fault, name, verdict, advice):
    site(**fault)
    assert wrong(slurm_checks(run())) == [(name, verdict)]
    assert advice in by_name(slurm_checks(run()))[name].note


def test_training_on_more_nodes_than_a_partition_gives(site, run):
    site(partition={"MaxNodes": "1"})
    wide = run("parallel.data=8", "parallel.tensor=2", "parallel.pipeline=1", "train.global_batch_size=64")
    check = by_name(slurm_checks(wide))["partition batch"]
    assert check.note.endswith("takes 2 nodes, and it gives 1 at most: change parallel.*")


def test_no_preemption_needs_no_signal(site, run):
    site(config={"PreemptType": "preempt/none", "PreemptParameters": "(null)"})
    assert wrong(slurm_checks(run())) == []


def test_the_default_partition_is_that_of_jobs_that_name_none(site, experiment):
    site(partition={"MaxTime": "00:10:00"})
    assert "partition batch" in by_name(slurm_checks(experiment("cluster=slurm_cpu")))
    site(partition={"Default": "NO"})
    check = by_name(slurm_checks(experiment("cluster=slurm_cpu", "cluster.partition=null")))["partition (default)"]
    assert check.measured == "none"


def test_a_controller_that_does_not_answer(program, run, experiment):
    program("scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    (check,) = slurm_checks(run())
    assert (check.name, check.verdict) == ("Slurm", "failed")
    assert "Unable to contact slurm controller" in check.note
    assert wrong(slurm_checks(experiment())) == [("Slurm", "warning")]  # this machine runs it without Slurm


def test_a_machine_without_slurm(run, experiment, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wrong(slurm_checks(run())) == [("Slurm", "not run")]
    assert list(slurm_checks(experiment())) == []


def test_limits_are_told_without_a_run_on_slurm_too(site, experiment):
    site()
    found = by_name(slurm_checks(experiment()))
    assert found["MaxArraySize"].measured == "1001"
    assert found["partition batch"].verdict == "passed"


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("1-00:00:00", 86400), ("02:00:00", 7200), ("30:00", 1800), ("UNLIMITED", None), ("", None), ("INFINITE", None)],
)
def test_times_as_scontrol_prints_them(time, seconds):
    assert seconds_of(time) == seconds
