"""How a run on Slurm stands: progress from its files, and what became of jobs that did not live to tell."""

import json
from types import SimpleNamespace

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.status import failed_steps
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch import step_status
from nemo_sspo.launch.slurm.commands import final_state, live_jobs
from nemo_sspo.launch.slurm.job_record import submissions
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.status import slurm_status
from nemo_sspo.launch.slurm.submit import run_paths
from nemo_sspo.launch.stale import freshness_of
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import queue, stand_in


def test_progress_rate_and_what_is_left(slurm, monkeypatch):
    """Resumed at step 40 of 100, at step 60 ten seconds later: two a second; four seconds on, sixteen are left."""
    experiment = load_experiment(slurm)
    place = run_paths(experiment)
    assert cli.main(["submit", *slurm]) == 0
    by_name = {item.job: item.id for item in submissions(place)}
    job = by_name["iter_1.train"]
    queue(place.run, f"{job}|{job}|N/A|RUNNING|None|{{}}")
    now = 1_800_000_000.0
    monkeypatch.setattr(step_status, "time", SimpleNamespace(time=lambda: now + 4))
    state = {"done": 60, "total": 100, "unit": "steps", "note": "", "updated": now, "first": 40, "started": now - 10}
    progress = RunLayout(place.run).progress("iter_1.train")
    progress.parent.mkdir(parents=True)
    progress.write_text(json.dumps(state))
    log = RunLayout(place.run).log("iter_1.train", f"{job}.2")
    log.write_bytes(b"loading\nstep 60 [loss]\r\n\n")
    place.attempts("iter_1.train").write_text(
        json.dumps({"event": "start", "job": job, "restart": 2, "code": 0, "at": int(now)}) + "\n"
    )
    rows = {
        row.step: row
        for row in slurm_status(jobs(experiment), place, live_jobs(place.run), str, freshness_of(experiment))
    }
    row = rows["iter_1.train"]
    assert (row.state, row.job, row.restarts, row.done, row.total) == ("running", job, 2, 60, 100)
    assert (row.per_second, row.remaining) == (2.0, 16.0)
    assert row.detail == "step 60 [loss]"
    assert rows["iter_1.export"].state == "missing"
    assert cli.main(["status", *slurm]) == 0  # brackets in a log line are no markup


def test_a_task_works_on_one_of_its_shards_at_a_time(slurm):
    """Published, under way, waiting for it; then the task is over and the one that was under way has failed."""
    slurm = [*slurm, "cluster.shards_per_task=3"]
    experiment = load_experiment(slurm)
    place, layout = run_paths(experiment), RunLayout(experiment.run_dir)
    assert cli.main(["submit", *slurm]) == 0
    array = {item.job: item.id for item in submissions(place)}["iter_1.rollout"]
    publish_steps(experiment, "iter_1.rollout.00000")
    queue(place.run, f"{array}_0|{array}|0|RUNNING|None|{{}}")
    begun = {"event": "start", "job": f"{array}_0", "restart": 0, "code": 0, "at": 5}
    place.attempts("iter_1.rollout.00000").write_text(json.dumps(begun) + "\n")
    progress = {"done": 3, "total": 9, "unit": "prompts", "note": "", "updated": 1.0, "first": 0, "started": 0.0}
    layout.progress("iter_1.rollout.00001").parent.mkdir()
    layout.progress("iter_1.rollout.00001").write_text(json.dumps(progress))

    def rows() -> list:
        found = slurm_status(
            jobs(experiment), place, live_jobs(place.run), lambda job: "timeout", freshness_of(experiment)
        )
        return [row for row in found if row.step.startswith("iter_1.rollout.")]

    assert [(row.state, row.done) for row in rows()] == [("published", None), ("running", 3), ("queued", None)]
    assert rows()[2].detail == "after iter_1.rollout.00001 in the same task"
    queue(place.run)
    assert [row.state for row in rows()] == ["published", "failed", "missing"]


def test_a_job_that_did_not_live_to_tell_is_asked_about(slurm, tmp_path):
    """squeue has forgotten it; the controller or, later, accounting knows how it ended."""
    experiment = load_experiment(slurm)
    place = run_paths(experiment)
    assert cli.main(["submit", *slurm]) == 0
    job = {item.job: item.id for item in submissions(place)}["iter_1.train"]
    begun = {"event": "start", "job": job, "restart": 0, "code": 0, "at": 5}
    place.attempts("iter_1.train").write_text(json.dumps(begun) + "\n")

    def detail() -> str:
        rows = slurm_status(jobs(experiment), place, [], final_state, freshness_of(experiment))
        return next(row.detail for row in rows if row.step == "iter_1.train")

    stand_in(tmp_path, "scontrol", f"[[ $4 == {job} ]] && echo JobId={job} JobName=x JobState=TIMEOUT Reason=TimeLimit")
    assert detail() == "ended by Slurm (timeout): "
    stand_in(tmp_path, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    stand_in(tmp_path, "sacct", "echo OUT_OF_MEMORY; echo COMPLETED")
    assert detail() == "ended by Slurm (out_of_memory): "


def test_a_failure_is_known_where_slurm_cannot_be_asked(slurm, monkeypatch):
    """By what the job has written down; one that only began may be running still."""
    experiment = load_experiment(slurm)
    place = run_paths(experiment)
    assert cli.main(["submit", *slurm]) == 0
    ids = {item.job: item.id for item in submissions(place)}
    for step, event in (("iter_1.train", "gave_up"), ("iter_1.export", "start")):
        line = {"event": event, "job": ids[step], "restart": 0, "code": 2, "at": 5}
        place.attempts(step).write_text(json.dumps(line) + "\n")
    RunLayout(place.run).log("iter_1.train", f"{ids['iter_1.train']}.0").write_text("error: no room\n")
    monkeypatch.setenv("PATH", "")
    assert failed_steps(experiment) == {"iter_1.train": "wrong input: error: no room"}
