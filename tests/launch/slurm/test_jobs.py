"""A run as Slurm jobs: what each asks for and waits for, and what a cluster cannot hold."""

import json
import re

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.slurm.jobs import cluster_problems, jobs
from tests.published_models import PUBLISHED


def graph(*overrides):
    return {job.name: job for job in jobs(load_experiment(overrides))}


EIGHT_B = ("experiment=llama3-8b", "cluster=slurm_pyxis", "prompts=p", "iterations=2")


def waits(job):
    return [(item.job, item.kind) for item in job.after]


def test_every_step_is_in_one_job_and_jobs_come_after_what_they_wait_for():
    experiment = load_experiment(EIGHT_B)
    made = jobs(experiment)
    *steps, report = (step for job in made for step in job.steps)
    assert steps == list(plan(experiment))
    assert report.step_id == "report"
    seen = set()
    for job in made:
        assert {item.job for item in job.after} <= seen
        seen.add(job.name)


def test_a_shard_waits_for_its_own_rollout_and_everything_else_for_whole_jobs():
    made = graph(*EIGHT_B)
    assert waits(made["iter_1.score"]) == [("iter_1.rollout", "aftercorr")]
    assert waits(made["iter_1.embed"]) == [("iter_1.rollout", "aftercorr")]
    assert {kind for _, kind in waits(made["iter_1.build_pairs"])} == {"afterok"}
    assert ("iter_1.export", "afterok") in waits(made["iter_2.rollout"])
    assert all(
        kind == "afterok"
        for name, job in made.items()
        if name != "report"
        for _, kind in waits(job)
        if name.split(".")[-1] not in ("score", "embed")
    )


def test_the_last_job_draws_the_page_however_the_others_ended():
    made = graph(*EIGHT_B)
    report = made["report"]
    assert list(made)[-1] == "report"
    ends = ["iter_1.diagnose", "iter_1.evaluate", "iter_2.diagnose", "iter_2.evaluate"]
    assert sorted(waits(report)) == [(job, "afterany") for job in ends]  # what nobody else waits for
    assert (report.nodes, report.tasks_per_node, report.gpus_per_node, report.is_array) == (1, 1, 0, False)
    assert graph(*EIGHT_B, "+cluster.stages.report.partition=cpu")["report"].resources.partition == "cpu"


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        (("experiment=llama3-70b", "cluster=slurm_pyxis"), (4, 8, 8)),  # 32 ranks on nodes of 8 GPUs
        (("experiment=llama3-8b", "cluster=slurm_pyxis"), (1, 8, 8)),
        (("experiment=llama3-8b", "cluster=slurm_modules"), (2, 4, 4)),  # 8 ranks on nodes of 4 GPUs
        (("experiment=llama3-8b", "cluster=slurm_pyxis", "parallel=single"), (1, 1, 1)),
        (("experiment=llama3-8b", "cluster=slurm_pyxis", "cluster.ranks_per_node=2"), (4, 2, 2)),
        (("experiment=quickstart", "cluster=slurm_cpu"), (2, 1, 0)),  # 4 ranks, two forked on each node
        (("experiment=quickstart", "cluster=slurm_cpu", "cluster.ranks_per_node=null"), (1, 1, 0)),
    ],
)
def test_nodes_tasks_and_gpus_of_training(overrides, shape):
    job = graph(*overrides, *(() if "quick" in overrides[0] else ("prompts=p",)))["iter_1.train"]
    assert (job.nodes, job.tasks_per_node, job.gpus_per_node) == shape


def test_lanes_of_equal_length_wait_task_by_task_and_others_for_the_whole_array():
    four = graph(*EIGHT_B, "cluster.shards_per_task=4")
    assert [[step.shard for step in batch] for batch in four["iter_1.rollout"].shard_batches] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert waits(four["iter_1.score"]) == waits(four["iter_1.embed"]) == [("iter_1.rollout", "aftercorr")]
    assert [len(batch) for batch in four["iter_1.train"].shard_batches] == [1]
    own = graph(*EIGHT_B, "cluster.shards_per_task=4", "cluster.stages.score.shards_per_task=8")
    assert waits(own["iter_1.score"]) == [("iter_1.rollout", "afterok")]
    assert waits(own["iter_1.embed"]) == [("iter_1.rollout", "aftercorr")]


def test_an_engine_takes_one_task_with_its_gpus():
    job = graph("experiment=llama3-70b", "cluster=slurm_pyxis", "prompts=p")["iter_1.rollout"]
    assert (len(job.steps), job.nodes, job.tasks_per_node, job.gpus_per_node) == (4, 1, 1, 8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("engine.tensor_parallel=16",), "engine.tensor_parallel=16 is more than cluster.gpus_per_node=8"),
        (("parallel.data=6", "train.global_batch_size=60"), "= 12 ranks do not fill whole nodes of 8"),
        (("cluster.ranks_per_node=9",), "cluster.ranks_per_node=9 is more than"),
        (("cluster.stages.score.time=00:05:00",), "cluster.stages.score: a time limit of 300 s leaves nothing"),
        (
            ("cluster.seconds_per_step=60", "cluster.stages.train.time=00:20:00", "train.checkpoint_every_steps=50"),
            "1200 s are too short for one checkpoint interval: 50 steps of 60 s, startup_seconds=300 and "
            "signal_seconds=300 need 3600 s",
        ),
        (("cluster.seconds_per_step=400", "train.checkpoint_every_steps=null"), "less than the 400 s of one step"),
    ],
)
def test_what_a_cluster_cannot_hold_is_refused_when_planned(overrides, message):
    with pytest.raises(UserError, match="") as caught:
        graph(*EIGHT_B, *overrides)
    assert message in str(caught.value)


def test_a_limit_for_one_interval_is_enough_and_a_measured_step_wins_over_the_estimate():
    timed = ("cluster.seconds_per_step=60", "cluster.stages.train.time=01:00:00", "train.checkpoint_every_steps=50")
    experiment = load_experiment([*EIGHT_B, *timed])
    assert list(cluster_problems(experiment)) == []
    (problem,) = cluster_problems(experiment, 61.0)
    assert "50 steps of 61 s" in problem


WITHOUT_GPUS = {"prepare_prompts", "import_policy", "build_pairs", "export", "diagnose", "report"}


def test_steps_without_a_gpu_leave_the_gpu_nodes_and_ask_for_little_time():
    site = (*EIGHT_B, "cluster.time=08:00:00", "cluster.cpu_partition=cpu")
    made = graph(*site, "cluster.stages.export.time=03:00:00", "cluster.stages.export.partition=fat")
    asked = {job.stage: (job.resources.partition, job.resources.time) for job in made.values()}
    assert {stage for stage, (partition, _) in asked.items() if partition != "batch"} == WITHOUT_GPUS
    assert asked["import_policy"] == asked["diagnose"] == asked["report"] == ("cpu", "02:00:00")
    assert asked["export"] == ("fat", "03:00:00")
    assert asked["train"] == ("batch", "08:00:00")
    assert {job.resources.time for job in graph(*EIGHT_B, "cluster.time=01:00:00").values()} >= {"01:00:00"}
    assert "02:00:00" not in {job.resources.time for job in graph(*EIGHT_B, "cluster.time=null").values()}


def test_options_of_gpu_nodes_do_not_reach_the_steps_beside_them():
    """In a partition of their own these have options of their own; without one they stand on the GPU nodes too."""
    site = (*EIGHT_B, "cluster.options={constraint: h100}", "cluster.stages.export.options={nice: '5'}")
    made = graph(*site, "cluster.cpu_partition=cpu", "cluster.cpu_options={licenses: 'scratch:1'}")
    asked = {job.stage: job.resources.options for job in made.values()}
    assert {stage for stage, options in asked.items() if "constraint" not in options} == WITHOUT_GPUS
    assert asked["train"] == {"constraint": "h100"}
    assert asked["import_policy"] == asked["report"] == {"licenses": "scratch:1"}
    assert asked["export"] == {"licenses": "scratch:1", "nice": "5"}
    assert all(job.resources.options["constraint"] == "h100" for job in graph(*site).values())


@pytest.mark.parametrize(
    ("setting", "told"),
    [("{mem: 4G}", "--mem: leave it out, cluster.memory has it"), ("{nice: '5'}", "cpu_options are those of cpu_part")],
)
def test_options_of_the_steps_without_a_gpu_are_refused_as_the_others_are(setting, told):
    with pytest.raises(UserError, match=re.escape(told)):
        graph(*EIGHT_B, f"cluster.cpu_options={setting}")


def test_a_cluster_without_gpus_has_no_other_place_for_any_step():
    made = graph("experiment=quickstart", "cluster=slurm_cpu", "cluster.time=08:00:00", "cluster.cpu_partition=cpu")
    assert {(job.resources.partition, job.resources.time) for job in made.values()} == {(None, "08:00:00")}


@pytest.mark.parametrize(
    ("precision", "stored", "memory"), [("bf16", 2, "45G"), ("fp32", 2, "82G"), ("bf16", 4, "82G")]
)
def test_what_converts_the_policy_asks_for_the_memory_that_it_takes(tmp_path, precision, stored, memory):
    """Of a 70B four times 9.16 GiB in bf16: two vocabularies and six fused feed-forward matrices; and 8 GiB."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["llama3.1-70b"]))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(70_553_706_496 * stored)
    site = (*EIGHT_B, f"policy={tmp_path}", f"precision={precision}", "cluster.memory=200G", "selection.candidates=2")
    made = graph(*site, "cluster.stages.export.memory=90G")
    asked = {job.stage: job.resources.memory for job in made.values()}
    assert (asked["import_policy"], asked["export_candidate"], asked["export"]) == (memory, memory, "90G")
    assert asked["build_pairs"] == asked["rollout"] == "200G"


def test_what_converts_a_policy_that_is_not_here_asks_for_all_of_a_node(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights without a config.json")
    for policy in ("org/model", tmp_path):
        assert graph(*EIGHT_B, f"policy={policy}")["iter_0.import_policy"].resources.memory == "0"


def test_a_local_cluster_has_no_jobs():
    with pytest.raises(UserError, match="no Slurm cluster; give cluster=<site>"):
        graph("experiment=quickstart")


def test_a_stage_may_have_an_image_of_its_own():
    """The others keep their environment's; a name that is no stage's is refused."""
    site = ["experiment=llama3-8b", "prompts=p", "cluster=slurm_pyxis", "iterations=1"]
    kept = {job.stage: job.environment.image for job in jobs(load_experiment(site))}
    own = {job.stage: job.environment.image for job in jobs(load_experiment([*site, "+cluster.images.embed=e.sqsh"]))}
    assert own == kept | {"embed": "e.sqsh"}
    assert own["score"] != "e.sqsh"
    with pytest.raises(UserError, match="no stage is named embedding"):
        load_experiment([*site, "+cluster.images.embedding=e.sqsh"])
