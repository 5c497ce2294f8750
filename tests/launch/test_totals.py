"""What a run takes in all: worked out by hand, for what is still to be run."""

import json
from pathlib import Path

from nemo_sspo import cli
from nemo_sspo.artifacts.sources.weight_files import weight_bytes
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.totals import gpu_hours, state_bytes, totals
from tests.launch import ready_run
from tests.launch.published import publish_steps

SITE = ["experiment=llama3-8b", "cluster=slurm_pyxis", "prompts=p", "iterations=2"]


def hours(*overrides):
    experiment = load_experiment([*SITE, *overrides])
    graph = jobs(experiment)
    return gpu_hours(graph, {job.name: len(job.shard_batches) for job in graph}, experiment.cluster)


def test_gpu_hours_are_time_limits_times_gpus_of_every_task():
    """Three arrays of 8 shards and an engine for each held-out rollout and evaluation; 8 GPUs train and refer."""
    found = hours("cluster.time='01:00:00'", "cluster.stages={train: {time: '03:00:00'}}")
    per_iteration = 3 * 8 + 1 + 1 + 8 + 8 * 3
    assert (found.at_most, found.unlimited) == (2 * per_iteration + 1, ())  # and the base's held-out responses
    taken_whole = hours(
        "cluster.time='01:00:00'", "cluster.stages={train: {time: '03:00:00'}}", "cluster.request_gpus=exclusive"
    )
    assert taken_whole.at_most == 2 * (8 * (3 * 8 + 1 + 1) + 8 + 8 * 3) + 8


def test_a_job_without_a_time_limit_is_named():
    found = hours("cluster.time=null", "cluster.stages={train: {time: '03:00:00'}}")
    assert found.at_most == 2 * 8 * 3
    assert found.unlimited[:2] == ("iter_0.rollout_held_out", "iter_1.rollout")
    assert "iter_1.train" not in found.unlimited


def test_jobs_tasks_and_disk_of_what_is_missing(slurm):
    experiment = load_experiment([*slurm, "cluster.shards_per_task=2"])
    copies = weight_bytes(Path("policy"))
    counted, disk, _ = totals(experiment)
    # 13 steps of one shard each and, of three shards in two tasks, three arrays; the report is a job too.
    assert counted == "14 jobs, 17 tasks to run"  # and no GPU
    assert disk.startswith(f"disk: {3 * copies / 2**30:,.2f} GiB of weights, besides responses; at most ")
    publish_steps(experiment, "iter_1.rollout", "import_policy")
    counted, *_ = totals(experiment)
    assert counted == "12 jobs, 14 tasks to run"


def test_a_states_size_is_that_of_weights_master_copies_and_two_moments(place):
    experiment = load_experiment(["experiment=quickstart", *ready_run.OVERRIDES, "train.checkpoint_every_steps=5"])
    stored = weight_bytes(Path("policy"))
    found = state_bytes(experiment, plan(experiment))
    # Three states at once: two are kept (train.keep_states), one is being written. A header precedes stored tensors.
    assert 0.9 * stored < found / 3 / 14 * 4 <= stored
    assert state_bytes(load_experiment(["experiment=quickstart", *ready_run.OVERRIDES]), plan(experiment)) == 0


def test_optimizer_steps_are_passes_over_each_portion(place):
    """30 prompts without 5 held out are 13 and 12 pairs at most: 4 and 3 steps of 4 pairs, twice over."""
    small = ["train.global_batch_size=4", "train.micro_batch_size=1"]
    given = ["experiment=quickstart", *ready_run.OVERRIDES, *small]
    assert totals(load_experiment(given))[-1] == "training: at most 14 optimizer steps, 2 epochs in each iteration"
    eighteen = load_experiment([*given, "train.train_epochs=18"])
    assert totals(eighteen)[-1] == "training: at most 126 optimizer steps, 18 epochs in each iteration"
    publish_steps(eighteen, "import_policy", "prepare_prompts", "iter_1.rollout")
    assert totals(eighteen)[-1] == "training: at most 126 optimizer steps, 18 epochs in each iteration"
    assert "training" not in totals(load_experiment([*given, "prompts=owner/name"]))[-1]
    assert "training" not in totals(load_experiment([*given, "prompts=absent.jsonl"]))[-1]
    further = load_experiment([*given, "iterations=3", "further.after=2", "further.prompts=owner/name"])
    assert "training" not in totals(further)[-1]


def test_plan_and_dry_run_end_with_totals(place, capsys):
    given = ["experiment=quickstart", *ready_run.OVERRIDES]
    for command in (["plan", *given], ["run", "--dry-run", *given], ["plan", "--graph", *given]):
        assert cli.main(command) == 0
        assert "23 steps to run, on this machine without a time limit\ndisk: " in capsys.readouterr().out
    assert cli.main(["plan", *SITE]) == 0
    assert "where policy=meta-llama/Meta-Llama-3-8B-Instruct has no weights" in capsys.readouterr().out


def test_nothing_is_left_of_a_finished_run(place):
    experiment = load_experiment(["experiment=quickstart", *ready_run.OVERRIDES, "iterations=1"])
    publish_steps(experiment, *(step.step_id for step in plan(experiment)))
    assert totals(experiment) == ["nothing is left to run: every step is published"]


def test_they_are_in_the_plan_as_data(slurm, capsys):
    """As the lines have them, with bytes and hours as numbers."""
    assert cli.main(["plan", *slurm, "cluster.shards_per_task=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    copies = 3 * weight_bytes(Path("policy"))
    assert len(found["jobs"]) == 14
    assert [found["totals"][name] for name in ("jobs", "tasks", "gpu_hours", "weight_bytes")] == [14, 17, None, copies]
    assert cli.main(["plan", *SITE, "--json"]) == 0
    totals_of_site = json.loads(capsys.readouterr().out)["totals"]
    assert totals_of_site["gpu_hours"]["at_most"] > 0
    assert totals_of_site["weight_bytes"] is totals_of_site["optimizer_steps"] is None
    assert cli.main(["plan", *slurm, "cluster=local_cpu", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert (len(here["steps"]), here["totals"]["steps"], here["totals"]["jobs"]) == (19, 19, None)
