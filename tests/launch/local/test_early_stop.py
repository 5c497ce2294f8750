"""A run that ends before its last iteration: what comes later is done with, here and on Slurm."""

import json
import subprocess

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.local import runner as local
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.slurm.remaining_jobs import remaining_jobs
from nemo_sspo.launch.slurm.status import slurm_status
from nemo_sspo.launch.slurm.submit import missing_parts, run_paths
from nemo_sspo.launch.stale import freshness_of
from tests.launch.fake_run import digests, drive, fake_command, tiny_experiment
from tests.launch.published import publish_steps
from tests.some_facts import some_facts

SELECTING = ("iterations=3", "selection.candidates=2", "selection.early_stop=true")


def test_the_local_runner_ends_after_the_iteration_and_stays_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"iter_1.select_model": "stop"}))
    experiment = tiny_experiment(tmp_path, "run", *SELECTING)
    shown = drive(experiment)
    steps = plan(experiment)
    assert sorted(shown.of("started")) == sorted(shown.of("finished"))
    assert sorted(shown.of("finished")) == sorted(step.step_id for step in steps if step.iteration < 2)
    assert sorted(shown.of("left out")) == sorted(step.step_id for step in steps if step.iteration >= 2)
    assert not RunLayout(experiment.run_dir).artifact("rollout", 2).parent.exists()
    later = next(step for step in steps if step.step_id == "iter_2.rollout.00000")
    done = subprocess.run(fake_command(experiment, (later,), "1"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr  # a Slurm job that waited: those after it go on, and do nothing too
    assert done.stdout.startswith("left out: the run has stopped after iteration 1: nobody wins")
    before = digests(experiment.run_dir)
    again = drive(experiment)
    assert (again.of("started"), len(again.of("left out"))) == ([], len(shown.of("left out")))
    assert digests(experiment.run_dir) == before


def stop_after(experiment, iteration: int) -> None:
    """As if select_model had ended the run there."""

    def fill(step, draft):
        draft.facts = some_facts(stop="nobody wins" if step.step_id == f"iter_{iteration}.select_model" else None)

    publish_steps(experiment, f"iter_{iteration}.select_model", fill=fill)


@pytest.fixture
def stopped(slurm):
    """A run on Slurm, of 3 iterations, whose second one has ended it."""
    overrides = [*slurm, *SELECTING, "selection.prompts=5", "train.global_batch_size=8"]
    experiment = load_experiment(overrides)
    stop_after(experiment, 2)
    return overrides, experiment


def test_later_jobs_are_not_submitted_and_their_steps_are_told_as_left_out(stopped, capsys):
    overrides, experiment = stopped
    graph, place, freshness = jobs(experiment), run_paths(experiment), freshness_of(experiment)
    assert {part.job.iteration for part in missing_parts(remaining_jobs(graph, place), freshness)} == {0, 1, 2}
    rows = {row.step: row for row in slurm_status(graph, place, [], str, freshness)}
    assert rows["iter_2.select_model"].state == "published"
    assert rows["iter_2.export"].state == "missing"
    detail = "stopped after iteration 2: nobody wins; its result is the policy of iteration 1"
    row = rows["iter_3.rollout.00000"]
    assert (row.state, row.detail) == ("left out", detail)
    assert cli.main(["status", *overrides]) == 0
    assert detail in capsys.readouterr().out


def test_a_candidate_is_sampled_as_soon_as_it_is_exported(stopped):
    _, experiment = stopped
    (sampling,) = [job for job in jobs(experiment) if job.name == "iter_1.rollout_selection"]
    waits = {item.job: item.kind for item in sampling.after}
    assert waits == {"prepare_prompts": "afterok", "iter_1.export_candidate": "aftercorr"}
