"""Slurm's commands fail half-way, are silent for a while, or know a run by another of its paths."""

from types import SimpleNamespace

import pytest

from nemo_sspo import cli
from nemo_sspo.commands import status as commands
from nemo_sspo.launch.slurm.commands import live_jobs, mark, name_in_queue
from tests.launch.slurm.stand_in import calls, queue, stand_in

_DIES = """printf '%s\\0' "$@" >>calls; printf '\\n' >>calls
[[ ! -e queue ]] || { echo "sbatch: error: Socket timed out" >&2; exit 1; }
echo "7|7|N/A|PENDING|None|$MARK" >queue; echo 7"""


def test_a_job_whose_id_was_never_told_is_cancelled_too(slurm, tmp_path, monkeypatch, capsys):
    """The second sbatch reaches the controller, but its answer does not come back."""
    monkeypatch.setenv("MARK", mark(tmp_path / "runs" / "quickstart"))
    taken = 'echo "8|8|N/A|PENDING|None|$MARK" >>queue; '
    stand_in(tmp_path, "sbatch", _DIES.replace("[[ ! -e queue ]] || {", "[[ ! -e queue ]] || { " + taken))
    assert cli.main(["submit", *slurm]) == 2
    assert len(calls(tmp_path)) == 2
    assert "Socket timed out" in capsys.readouterr().err
    assert (tmp_path / "cancelled").read_text().split()[-2:] == ["7", "8"]


def test_what_cannot_be_cancelled_is_named(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MARK", mark(tmp_path / "runs" / "quickstart"))
    stand_in(tmp_path, "sbatch", _DIES)
    stand_in(tmp_path, "scancel", "echo 'scancel: error: slurm_kill_job2() failed' >&2; exit 1")
    assert cli.main(["submit", *slurm]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Socket timed out" in line
    assert "slurm_kill_job2() failed" in line
    assert "(submitted: 7)" in line


def test_a_watch_outlives_a_controller_that_restarts(slurm, tmp_path, monkeypatch, capsys):
    class Enough(Exception):
        """The controller is up and the table has been printed."""

    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        stand_in(tmp_path, "squeue", "true")
        if len(pauses) == 2:
            raise Enough

    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=pause))
    stand_in(tmp_path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert cli.main(["status", *slurm]) == 2
    with pytest.raises(Enough):
        cli.main(["status", *slurm, "--watch", "5"])
    shown = capsys.readouterr()
    assert "Unable to contact slurm controller (asking again)" in shown.err
    assert "iter_1.train" in shown.out
    assert pauses == [5.0, 5.0]


def test_a_run_is_known_by_all_of_its_paths(slurm, tmp_path):
    assert cli.main(["submit", *slurm]) == 0
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    for path in ("runs/quickstart", "link/quickstart", "runs/../runs/quickstart/"):
        assert cli.main(["status", path]) == 0


def test_a_site_that_writes_its_own_comments_hides_no_job(slurm, tmp_path, capsys):
    """The job's name tells the run: of the same name elsewhere, another."""
    assert cli.main(["submit", *slurm]) == 0
    run = tmp_path / "runs" / "quickstart"
    ours = [name_in_queue(run, job) for job in ("iter_1.rollout", "iter_1.train")]
    theirs = name_in_queue(tmp_path / "elsewhere" / "quickstart", "iter_1.train")
    comment = "billed to|project 7"
    lines = [f"101_2|101|2|RUNNING|None|{comment}|{ours[0]}", f"102|102|N/A|PENDING|None|{comment}|{ours[1]}"]
    (tmp_path / "queue").write_text("\n".join([*lines, f"9|9|N/A|PENDING|None|{comment}|{theirs}", "8|8|N/A|RUNNING|"]))
    assert [(job.id, job.task) for job in live_jobs(run)] == [("101_2", 2), ("102", 0)]
    assert cli.main(["submit", *slurm]) == 2
    assert "Slurm jobs 101, 102 of this run are queued or running" in capsys.readouterr().err


def test_a_run_is_cancelled_whose_settings_cannot_be_read(slurm, tmp_path, capsys):
    assert cli.main(["submit", *slurm]) == 0
    run = tmp_path / "runs" / "quickstart"
    for trouble in (lambda: (run / "experiment.json").write_text("{"), (run / "experiment.json").unlink):
        trouble()
        queue(run, "104|104|N/A|RUNNING|None|{}")
        assert cli.main(["cancel", "runs/quickstart"]) == 0
        assert "cancelled 1 job;" in capsys.readouterr().out
    assert (tmp_path / "cancelled").read_text() == "--quiet 104\n" * 2
    assert cli.main(["cancel", "runs"]) == 2
    assert "no run lies there" in capsys.readouterr().err
