"""How a run of this machine stands, and what is said of it."""

import json
import os
import time

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands.status import folded
from nemo_sspo.launch.local.status import local_status
from nemo_sspo.launch.run_directory import hold
from nemo_sspo.launch.step_status import StepStatus
from tests.launch.fake_run import drive, tiny_experiment

TRAIN = "iter_1.train"


def report(layout: RunLayout, step: str, seconds_ago: float = 0.0) -> None:
    """As if a step had reported, then said something in its log."""
    now = time.time() - seconds_ago
    state = {"done": 60, "total": 100, "unit": "steps", "note": "", "updated": now, "first": 40, "started": now - 10}
    for path, text in ((layout.progress(step), json.dumps(state)), (layout.log(step, "1"), "step 60 [loss]\n")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (now, now))


def test_what_runs_is_what_has_spoken_since_the_runner_began(tmp_path):
    experiment = tiny_experiment(tmp_path, "run")
    layout = RunLayout(experiment.run_dir)
    drive(experiment, stages={"prepare_prompts", "import_policy"})
    report(layout, "iter_1.rollout.00000", seconds_ago=60)  # of a runner that was killed

    def rows() -> dict[str, StepStatus]:
        return {row.step: row for row in local_status(experiment)}

    assert rows()[TRAIN] == StepStatus(TRAIN, "missing")
    assert rows()["iter_1.rollout.00000"].detail == "ended before it was done: step 60 [loss]"
    with hold(layout):
        assert {row.state for row in rows().values()} == {"published", "queued"}
        report(layout, TRAIN)
        row = rows()[TRAIN]
        assert (row.state, row.done, row.total, row.unit, row.detail) == ("running", 60, 100, "steps", "step 60 [loss]")
        assert row.per_second == pytest.approx(2.0)
        assert rows()["prepare_prompts"].state == "published"
        rollout = "iter_1.rollout.00000"
        assert rows()[rollout].state == "queued"
        layout.log(rollout, "2").write_text("loading\n")  # begun again, and has not reported yet
        assert rows()[rollout] == StepStatus(rollout, "running", detail="loading")
    assert rows()[TRAIN].state == "missing"


def test_a_run_is_named_by_its_directory(tmp_path, capsys):
    experiment = tiny_experiment(tmp_path, "run")
    run = str(experiment.run_dir)
    assert cli.main(["status", run]) == 2
    assert "no run" in capsys.readouterr().err
    drive(experiment, stages={"prepare_prompts"})
    assert cli.main(["status", run]) == 0
    shown = capsys.readouterr().out
    assert "nobody works on it; `nemo-sspo run" in shown
    assert cli.main(["run", run, "--dry-run"]) in (0, 2)  # the toy's models may be missing
    printed = capsys.readouterr()
    assert "prepare_prompts" in printed.out
    assert "cannot read the override" not in printed.err
    assert cli.main(["resume", run]) == 2
    assert f"a run of this machine, not of Slurm: `nemo-sspo run {run}` continues it" in capsys.readouterr().err
    drive(experiment)
    assert cli.main(["status", run, "--watch", "1"]) == 0  # it ends by itself
    assert "nobody works on it" not in capsys.readouterr().out
    assert cli.main(["status", run, "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"published"}


def test_a_moved_run_is_refused(tmp_path, capsys):
    experiment = tiny_experiment(tmp_path, "run")
    drive(experiment, stages={"prepare_prompts"})
    experiment.run_dir.rename(tmp_path / "moved")
    for command in ("run", "status"):
        assert cli.main([command, str(tmp_path / "moved")]) == 2
        assert "its experiment.json says" in capsys.readouterr().err


def test_shards_of_which_there_is_the_same_to_say_share_a_line():
    states = ["published", "published", "running", "running", "queued", "queued", "queued", "failed"]
    rows = [StepStatus(f"iter_1.rollout.{n:05d}", state, job=f"7_{n}") for n, state in enumerate(states)]
    rows.append(StepStatus("iter_1.score.00000", "queued", job="8_0"))
    shown = [(row.step, row.state, row.job) for row in folded(rows)]
    assert shown == [
        ("iter_1.rollout.0-1", "published", "7"),
        ("iter_1.rollout.00002", "running", "7_2"),
        ("iter_1.rollout.00003", "running", "7_3"),
        ("iter_1.rollout.4-6", "queued", "7"),
        ("iter_1.rollout.00007", "failed", "7_7"),
        ("iter_1.score.00000", "queued", "8_0"),
    ]
