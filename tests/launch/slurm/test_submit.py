"""What is asked of Slurm, with stand-ins for its commands that write down how they were called."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.shard_ranges import shards_in
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.run_directory import bind
from nemo_sspo.launch.slurm.commands import live_jobs, mark, name_in_queue
from nemo_sspo.launch.slurm.job_record import Submission, append_submission, events, submissions
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.submit import missing_parts, run_paths, submit
from nemo_sspo.launch.stale import freshness_of
from tests import processor_time
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import MAX_ARRAY_SIZE, calls, option, queue, stand_in


def test_the_chain(slurm, tmp_path):
    assert cli.main(["submit", *slurm, "--begin", "now+1hour", "--account", "a1"]) == 0
    made = calls(tmp_path)
    assert list(made) == [f"{job.name}.sbatch" for job in jobs(load_experiment(slurm))]
    run = tmp_path / "runs" / "quickstart"
    for call in made.values():
        assert (option(call, "chdir"), option(call, "begin")) == (str(run), "now+1hour")
        assert "--kill-on-invalid-dep=yes" in call
        assert option(call, "export") == "ALL"
        assert option(call, "comment") == mark(run)
        assert option(call, "job-name") == name_in_queue(run, os.path.basename(call[-1]).removesuffix(".sbatch"))
    ids = {name.removesuffix(".sbatch"): str(101 + place) for place, name in enumerate(made)}
    rollout, score, embed = (ids[f"iter_1.{stage}"] for stage in ("rollout", "score", "embed"))
    assert option(made["prepare_prompts.sbatch"], "dependency") is None
    assert option(made["iter_1.rollout.sbatch"], "array") == "0-2"
    assert option(made["iter_1.score.sbatch"], "dependency") == f"aftercorr:{rollout}"
    expected = f"afterok:{rollout},afterok:{score},afterok:{embed}"
    assert option(made["iter_1.build_pairs.sbatch"], "dependency") == expected
    assert option(made["iter_1.build_pairs.sbatch"], "array") is None
    assert "#SBATCH --account=a1\n" in (run / "slurm" / "iter_1.train.sbatch").read_text()
    recorded = submissions(run_paths(load_experiment(slurm)))
    assert {item.job: item.id for item in recorded} == ids


def test_only_what_is_missing_is_submitted(slurm):
    """Shard 0 is sampled and scored, shard 1 sampled, shard 2 nothing; scores wait for what is submitted with them."""
    experiment = load_experiment(slurm)
    early = ("prepare_prompts", "iter_0.import_policy", "iter_0.rollout_held_out")
    publish_steps(experiment, *early, "iter_1.rollout.00000", "iter_1.rollout.00001", "iter_1.score.00000")
    parts = [
        (part.job.name, part.shards, part.correlated)
        for part in missing_parts(jobs(experiment), freshness_of(experiment))
    ]
    assert parts[:5] == [
        ("iter_1.rollout", (2,), False),
        ("iter_1.score", (1,), False),
        ("iter_1.score", (2,), True),
        ("iter_1.embed", (0, 1), False),
        ("iter_1.embed", (2,), True),
    ]
    RunLayout(experiment.run_dir).root.mkdir(exist_ok=True)
    bind(experiment, RunLayout(experiment.run_dir))
    done = {(item.job, item.shards): item.id for item in submit(experiment)}
    lines = [line.split("\0")[:-1] for line in Path("calls").read_text().splitlines()]
    of_scores = [call for call in lines if call[-1].endswith("iter_1.score.sbatch")]
    assert [option(call, "array") for call in of_scores] == ["1", "2"]
    assert [option(call, "dependency") for call in of_scores] == [None, f"aftercorr:{done[('iter_1.rollout', (2,))]}"]
    (pairs,) = [call for call in lines if call[-1].endswith("iter_1.build_pairs.sbatch")]
    assert option(pairs, "dependency").count("afterok") == 3
    assert option(pairs, "dependency").count(":") == 5  # both parts of score and of embed


def test_a_task_that_misses_one_of_its_shards_is_submitted_again(slurm):
    """Shards 0 and 1 are one task, 2 another: tasks are numbered, not shards."""
    slurm = [*slurm, "cluster.shards_per_task=2"]
    experiment = load_experiment(slurm)
    early = ("prepare_prompts", "iter_0.import_policy", "iter_0.rollout_held_out", "iter_1.rollout.00002")
    publish_steps(experiment, *early, "iter_1.rollout.00000", "iter_1.score.00002")
    parts = [
        (part.job.name, part.tasks, part.shards, part.correlated)
        for part in missing_parts(jobs(experiment), freshness_of(experiment))
    ]
    assert parts[:4] == [
        ("iter_1.rollout", (0,), (0, 1), False),
        ("iter_1.score", (0,), (0, 1), True),
        ("iter_1.embed", (1,), (2,), False),
        ("iter_1.embed", (0,), (0, 1), True),
    ]


def test_an_arrays_numbers_count_tasks_and_more_than_slurm_numbers_are_refused(slurm, tmp_path, capsys):
    """Fifteen shards by threes are tasks 0 to 4 where MaxArraySize is 5, whatever their shards' numbers are."""
    fifteen = [*slurm, "rollout.shards=15"]
    for mode in ([], ["--dry-run"]):
        assert cli.main(["submit", *fifteen, "cluster.shards_per_task=2", *mode]) == 2
        error = capsys.readouterr().err
        assert "iter_1.rollout: 8 tasks, and this cluster's arrays have at most 5 (MaxArraySize)" in error
        assert "raise cluster.shards_per_task=2, or lower rollout.shards" in error
    assert not (tmp_path / "calls").exists()
    assert cli.main(["submit", *fifteen, "cluster.shards_per_task=3"]) == 0
    assert option(calls(tmp_path)["iter_1.rollout.sbatch"], "array") == f"0-{MAX_ARRAY_SIZE - 1}"


def test_where_slurm_does_not_say_how_large_an_array_may_be_sbatch_does_and_names_the_job(slurm, tmp_path, capsys):
    stand_in(tmp_path, "scontrol", "exit 1")
    refusal = "sbatch: error: Batch job submission failed: Invalid job array specification"
    stand_in(tmp_path, "sbatch", f'[[ $* != *--array=* ]] || {{ echo "{refusal}" >&2; exit 1; }}; echo 7')
    assert cli.main(["submit", *slurm, "train.checkpoint_every_steps=50"]) == 2
    assert capsys.readouterr().err == f"error: iter_0.rollout_held_out: {refusal}\n"


def test_a_refused_job_takes_back_those_before_it(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_AT", "4")
    assert cli.main(["submit", *slurm, "train.checkpoint_every_steps=50"]) == 2
    assert capsys.readouterr().err == "error: iter_1.rollout: sbatch: error: invalid account\n"
    assert (tmp_path / "cancelled").read_text() == "--quiet 101 102 103\n"


def test_an_outer_jobs_variables_are_not_passed_on(slurm, tmp_path, monkeypatch):
    """Inside an allocation SLURM_* and SBATCH_* would turn into options of the new jobs."""
    for name in ("SLURM_NTASKS", "SBATCH_PARTITION", "SLURM_MEM_PER_CPU", "SLURM_CONF", "MY_TOKEN"):
        monkeypatch.setenv(name, "x")
    assert cli.main(["submit", *slurm]) == 0
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert not names & {"SLURM_NTASKS", "SBATCH_PARTITION", "SLURM_MEM_PER_CPU"}
    assert {"SLURM_CONF", "MY_TOKEN"} <= names
    written = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert "MY_TOKEN" not in written


def test_jobs_of_other_runs_are_not_ours(slurm):
    run = load_experiment(slurm).run_dir
    queue(run, "12_3|12|3|RUNNING|None|{}", "9|9|N/A|PENDING|Priority|nemo-sspo:other", "8|8|N/A|RUNNING|None|")
    (job,) = live_jobs(run)
    assert (job.id, job.submission, job.task, job.state) == ("12_3", "12", 3, "RUNNING")


def test_a_part_of_the_iterations_is_submitted_and_the_rest_later(slurm, tmp_path, capsys):
    two = [*slurm, "iterations=2"]
    experiment = load_experiment(two)
    assert cli.main(["submit", *two, "--iterations", "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"`nemo-sspo resume {experiment.run_dir}` submits the rest" in told
    first = calls(tmp_path)
    assert {"prepare_prompts.sbatch", "iter_1.train.sbatch", "report.sbatch"} <= first.keys()
    assert not [name for name in first if name.startswith("iter_2")]
    ids = {item.job: item.id for item in submissions(run_paths(experiment))}
    ends = set(option(first["report.sbatch"], "dependency").split(","))
    assert ends == {f"afterany:{ids[job]}" for job in ("iter_1.evaluate", "iter_1.diagnose")}

    (tmp_path / "calls").unlink()
    run = str(experiment.run_dir)
    assert cli.main(["resume", run, "--iterations", "2"]) == 2
    message = capsys.readouterr().err
    assert (
        "--iterations 2: iter_1.rollout is missing, and jobs wait only for jobs that are submitted with them" in message
    )
    assert not (tmp_path / "calls").exists()
    publish_steps(experiment, *(step.step_id for step in plan(experiment) if step.iteration < 2))
    assert cli.main(["resume", run, "--iterations", "2"]) == 0
    assert {name.split(".")[0] for name in calls(tmp_path)} == {"iter_2", "report"}


@pytest.mark.parametrize("given", ["0", "3", "2-1", "1-3", "x", "1-", "1,2"])
def test_iterations_that_the_run_has_not_are_refused(slurm, given, capsys):
    assert cli.main(["submit", *slurm, "iterations=2", "--iterations", given, "--dry-run"]) == 2
    assert f"--iterations {given}: expected N or FIRST-LAST within 1-2" in capsys.readouterr().err


def test_a_submit_limit_is_told_with_what_slurm_counts_and_how_to_stay_below(slurm, tmp_path, capsys):
    refusal = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    stand_in(tmp_path, "sbatch", f'[[ $* != *iter_1.train* ]] || {{ echo "{refusal}" >&2; exit 1; }}; echo 7')
    assert cli.main(["submit", *slurm, "--dry-run"]) == 0
    shown = capsys.readouterr().out.strip().splitlines()
    commands = [shlex.split(line) for line in shown if line.startswith("sbatch ")]
    arrays = [option(command, "array") for command in commands]
    jobs_to_slurm = sum(1 if tasks is None else len(shards_in(tasks)) for tasks in arrays)
    assert jobs_to_slurm >= len(commands) + 6  # rollout, score and embed have three tasks each
    assert shown[-1] == f"# {jobs_to_slurm} jobs, as a limit of submitted jobs counts them: every task of an array"
    assert cli.main(["submit", *slurm]) == 2
    message = capsys.readouterr().err
    assert f"iter_1.train: {refusal}: these are {jobs_to_slurm} jobs, for Slurm counts every task" in message
    assert "--iterations 1" in message


def test_the_comment_can_be_the_sites(slurm, tmp_path):
    """The job's name still tells whose it is."""
    overrides = [*slurm, "cluster.comment=project:42", "+cluster.stages.train.comment=training"]
    assert cli.main(["submit", *overrides]) == 0
    comments = {name: option(call, "comment") for name, call in calls(tmp_path).items()}
    assert comments.pop("iter_1.train.sbatch") == "training"
    assert set(comments.values()) == {"project:42"}
    run = load_experiment(slurm).run_dir
    queue(run, f"101|101|N/A|PENDING|Priority|project:42|{name_in_queue(run.absolute(), 'prepare_prompts')}")
    assert [job.id for job in live_jobs(run)] == ["101"]


def test_a_live_run_is_neither_submitted_nor_run_here(slurm, capsys, monkeypatch):
    assert cli.main(["submit", *slurm]) == 0
    run = load_experiment(slurm).run_dir
    queue(run, "101|101|N/A|PENDING|Priority|{}", "104_0|104|0|PENDING|Dependency|{}")
    for command in (["submit", *slurm], ["resume", str(run)], ["run", *slurm, "cluster=local_cpu"]):
        capsys.readouterr()
        assert cli.main(command) == 2
        assert "Slurm jobs 101, 104 of this run are queued or running" in capsys.readouterr().err
    assert cli.main(["cancel", str(run)]) == 0
    assert Path("cancelled").read_text() == "--quiet 101 104\n"
    os.unlink("bin/squeue")
    if shutil.which("squeue") is None:
        assert cli.main(["run", *slurm, "cluster=local_cpu"]) == 2
        assert "there is no squeue here to tell" in capsys.readouterr().err


def test_a_dry_run_writes_scripts_and_shows_the_commands(slurm, tmp_path, capsys):
    assert cli.main(["submit", *slurm, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "calls").exists()
    commands = [shlex.split(line) for line in shown.splitlines() if line.startswith("sbatch ")]
    assert len(commands) == len(jobs(load_experiment(slurm)))
    assert all(os.path.exists(command[-1]) for command in commands)
    waits = {os.path.basename(command[-1]): option(command, "dependency") for command in commands}
    assert waits["iter_1.score.sbatch"] == "aftercorr:<iter_1.rollout>"
    read = ("iter_1.train", "iter_1.build_pairs", "prepare_prompts")  # the last two for the model card
    assert waits["iter_1.export.sbatch"] == ",".join(f"afterok:<{job}>" for job in read)
    assert not (tmp_path / "runs" / "quickstart" / "experiment.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume", "seed=1"], "resume takes a run's directory"),
        (["resume", "runs/none"], "no run lies there"),
        (["status", "runs/none"], "no run lies there"),
        (["submit", "experiment=quickstart"], "no Slurm cluster; give cluster=<site>"),
        (["submit", "experiment=quickstart", "cluster=slurm_cpu", "--partition", "a b"], "cluster.partition=a b"),
    ],
)
def test_mistakes_are_one_line(slurm, arguments, message, capsys):
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_time_limit_below_a_measured_step_is_refused(slurm, capsys):
    """What the last iteration measured counts, not what the configuration hopes."""
    timed = ["cluster.stages.train.time=00:30:00", "cluster.seconds_per_step=1", "train.checkpoint_every_steps=100"]
    assert cli.main(["submit", *slurm, *timed, "--dry-run"]) == 0
    assert cli.main(["submit", *slurm, *timed, "cluster.seconds_per_step=20", "--dry-run"]) == 2
    assert "too short for one checkpoint interval" in capsys.readouterr().err


def test_records_survive_a_torn_line(tmp_path):
    place = run_paths(load_experiment(["experiment=quickstart", f"runs_dir={tmp_path}"]))
    (place.state / "attempts").mkdir(parents=True)
    append_submission(place, Submission("iter_1.rollout", "7", (0, 2), 1.0))
    with place.submissions.open("a") as file:
        file.write('{"job": "iter_1.sc')
    assert submissions(place) == [Submission("iter_1.rollout", "7", (0, 2), 1.0)]
    line = {"event": "start", "job": "7_0", "restart": 1, "code": 0, "at": 5}
    place.attempts("x").write_text(json.dumps(line) + "\n\0\0\n" + json.dumps(line | {"event": "finished"}))
    assert [event.event for event in events(place, "x")] == ["start"]


def test_planning_for_slurm_is_quick_and_imports_nothing_heavy():
    """In processes of their own: two seconds where the imports that it needs take a sixth of one, on a busy machine."""
    script = (
        "import sys, time; from nemo_sspo import cli; code = cli.main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'vllm', 'megatron', 'nemo'} & set(sys.modules); "
        "print(time.process_time(), sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    plan = ["plan", "experiment=llama3-70b", "cluster=slurm_pyxis", "prompts=p"]

    def seconds() -> float:
        done = subprocess.run([sys.executable, "-c", script, *plan], capture_output=True, text=True, timeout=60)
        taken, heavy = done.stderr.strip().splitlines()[-1].split(maxsplit=1)
        assert heavy == "[]"
        assert "/lustre/images/nemo-sspo-train.sqsh" in done.stdout
        return float(taken)

    assert processor_time.least(seconds) < 12 * processor_time.of_imports("pydantic", "hydra", "rich")


def test_slurms_silence_is_one_line(slurm, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho hello\n")
    experiment = load_experiment(slurm)
    RunLayout(experiment.run_dir).root.mkdir(parents=True)
    with pytest.raises(UserError, match="answered 'hello' instead of a job id"):
        submit(experiment)
