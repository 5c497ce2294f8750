"""A step that failed is told as such by status, report and summary alike, with its error, until it begins again."""

import json

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.report import failures
from nemo_sspo.launch.failure import read_failure, write_failure
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.local.status import local_status
from nemo_sspo.launch.local.step_failed import StepFailed
from nemo_sspo.launch.run_directory import hold
from tests.launch.fake_run import drive, tiny_experiment

STEP = "iter_1.build_pairs"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("crash", "failed with exit code 1: RuntimeError: matrix is singular"),
        ("refuse", "prompts.jsonl line 3: not JSON"),
        ("silent", "ended without publishing its artifact: it has said nothing"),
    ],
)
def test_status_report_and_summary_say_the_same(tmp_path, monkeypatch, capsys, how, reason):
    experiment = tiny_experiment(tmp_path, "run")
    run, layout = str(experiment.run_dir), RunLayout(experiment.run_dir)
    monkeypatch.setenv("FAKE_STAGES", json.dumps({STEP: how}))
    with pytest.raises(StepFailed):
        drive(experiment)
    assert cli.main(["status", run, "--json"]) == 0
    rows = {row["step"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows[STEP]["state"], rows[STEP]["detail"]) == ("failed", reason)
    assert [row["step"] for row in rows.values() if row["state"] == "failed"] == [STEP]
    assert cli.main(["status", run]) == 0
    assert f"{STEP} failed; once the cause is gone, `nemo-sspo run" in capsys.readouterr().out

    assert cli.main(["summary", run]) == 0
    assert f"{STEP} failed: {reason}" in " ".join(capsys.readouterr().out.split())
    assert json.loads(layout.summary.read_text())["failed"] == {STEP: reason}
    assert cli.main(["report", run]) == 0
    page = layout.report.read_text()
    assert f"Failed: {STEP}; " in page
    assert f"{STEP} failed: {reason}" in page

    monkeypatch.delenv("FAKE_STAGES")
    drive(experiment)
    assert failures(layout) == {}
    assert not layout.failure(STEP).exists()
    assert {row.state for row in local_status(experiment)} == {"published"}


def test_a_failure_before_the_runner_that_works_now_is_no_news(tmp_path):
    experiment = tiny_experiment(tmp_path, "run")
    layout = RunLayout(experiment.run_dir)
    drive(experiment, stages={"prepare_prompts"})
    write_failure(layout, STEP, "old")
    assert read_failure(layout, STEP) == "old"
    with hold(layout):
        since = layout.lock.stat().st_mtime
        assert read_failure(layout, STEP, since + 60) is None
        layout.failure(STEP).write_text("{")
        assert read_failure(layout, STEP) is None, "torn by a full disk"


def test_a_directory_that_is_no_run_has_no_summary(tmp_path, capsys):
    (tmp_path / "data" / "iter_1").mkdir(parents=True)
    assert cli.main(["summary", str(tmp_path / "data")]) == 2
    assert "no run lies there" in capsys.readouterr().err
    assert not (tmp_path / "data" / "summary.json").exists()
