"""The job that draws a Slurm run's page: after everything, again where something is new, and no step depends on it."""

import json
import os

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.run_directory import bind
from nemo_sspo.launch.slurm.job_record import Submission, append_submission
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.submit import missing_parts, run_paths
from nemo_sspo.launch.stale import freshness_of
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import calls, option


def published_run(slurm):
    """Every step looks published; nothing is drawn."""
    experiment = load_experiment(slurm)
    publish_steps(experiment, *(job.name for job in jobs(experiment) if job.name != "report"))
    return experiment


def test_the_page_is_drawn_after_all_that_is_submitted(slurm, tmp_path):
    assert cli.main(["submit", *slurm]) == 0
    made = calls(tmp_path)
    ids = {name.removesuffix(".sbatch"): str(101 + place) for place, name in enumerate(made)}
    waits = option(made["report.sbatch"], "dependency")
    assert waits == f"afterany:{ids['iter_1.evaluate']},afterany:{ids['iter_1.diagnose']}"
    assert '-m nemo_sspo.cli report "$run"' in (tmp_path / "runs/quickstart/slurm/report.sbatch").read_text()


def test_a_page_that_is_there_and_shows_everything_is_not_drawn_again(slurm):
    experiment = published_run(slurm)
    page = RunLayout(experiment.run_dir).report

    def parts():
        return [part.job.name for part in missing_parts(jobs(experiment), freshness_of(experiment))]

    assert parts() == ["report"]
    page.write_text("")
    assert parts() == []
    last = RunLayout(experiment.run_dir).artifact("diagnose", 1) / "manifest.json"
    os.utime(last, (later := page.stat().st_mtime + 9, later))  # it does not show this one
    assert parts() == ["report"]
    os.utime(page, (later, later))
    assert parts() == []
    os.utime(page, (1, 1))  # drawn by hand in the middle of the run
    assert parts() == ["report"]


def test_a_page_that_cannot_be_drawn_is_told_and_changes_no_other_step(slurm, capsys):
    experiment = published_run(slurm)
    bind(experiment, RunLayout(experiment.run_dir))
    run_paths(experiment).attempts("report").parent.mkdir(parents=True)
    append_submission(run_paths(experiment), Submission("report", "7", (0,), 1.0))
    line = {"job": "7", "restart": 0, "code": 1, "at": 5}
    record = "".join(json.dumps(line | {"event": event}) + "\n" for event in ("start", "gave_up"))
    run_paths(experiment).attempts("report").write_text(record)
    capsys.readouterr()
    assert cli.main(["status", str(experiment.run_dir)]) == 0
    shown = capsys.readouterr().out
    assert "report failed (its logs: " in shown
    assert cli.main(["status", str(experiment.run_dir), "--json"]) == 0
    states = {row["step"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states.pop("report") == "failed"
    assert set(states.values()) == {"published"}
