"""Which steps the trial runs, what its runs share, and that a training is killed and goes on."""

from types import SimpleNamespace

import pytest

from nemo_sspo.artifacts.store import open_artifact
from nemo_sspo.doctor import trial as trial_module
from nemo_sspo.doctor.trial import LOOP, ONE_RANK, RESUMED, loop_steps, run_trial, runnable, step_facts, up_to
from nemo_sspo.launch.plan import plan
from tests.doctor.made_trial import Actor, loop

BOTH = {"train", "rollout"}
HOST = SimpleNamespace(stdout='{"largest": 1e-7}\n', returncode=0)
FIRST = ["rollout.00000", "score.00000", "embed.00000", "build_pairs", "reference_logps", "train", "export"]


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """Plays the process that scores on the host."""
    monkeypatch.setattr(trial_module.subprocess, "run", lambda *_, **__: HOST)


def names(steps):
    return [step.step_id for step in steps]


@pytest.mark.parametrize(("gpus", "ranks"), [(0, 4), (1, 1), (2, 2), (3, 2), (4, 4), (8, 4)])
def test_the_layout_is_one_that_the_machine_holds(tmp_path, gpus, ranks):
    experiment = loop(tmp_path, gpus=gpus)
    assert experiment.parallel.world_size == ranks
    assert experiment.cluster.has_gpus is (gpus > 0)
    assert experiment.precision.kind == ("bf16" if gpus else "fp32")
    assert loop(tmp_path, "parallel=single", "precision=fp8", gpus=4).parallel.world_size == 1


def test_the_loop_is_an_iteration_and_the_next_ones_log_probs(tmp_path):
    steps = loop_steps(loop(tmp_path))
    second = [f"iter_2.{name}" for name in FIRST[:5]]
    assert names(steps) == ["prepare_prompts", "iter_0.import_policy", *(f"iter_1.{name}" for name in FIRST), *second]
    assert all(set(step.depends_on) <= set(names(steps)) for step in steps)
    with_a_choice = loop_steps(loop(tmp_path, "selection.candidates=2"))
    assert "iter_1.select_model" in names(with_a_choice)
    assert all(set(step.depends_on) <= set(names(with_a_choice)) for step in with_a_choice)


def test_an_image_with_one_environment_runs_its_part_and_the_disk_hands_over(tmp_path):
    experiment = loop(tmp_path)
    steps, actor = loop_steps(experiment), Actor()
    ran = []
    for environment in ("rollout", "train", "rollout", "train"):
        part = runnable(steps, {environment})
        actor(experiment, part)
        ran.append(actor.calls[-1][1])
    assert ran[0] == ["prepare_prompts", *(f"iter_1.{name}" for name in FIRST[:4])]
    assert ran[1] == ["iter_0.import_policy", *(f"iter_1.{name}" for name in FIRST[4:])]
    assert ran[2] == [f"iter_2.{name}" for name in FIRST[:4]]
    assert ran[3] == ["iter_2.reference_logps"]
    assert sum(map(len, ran)) == len(steps)


def test_up_to_takes_what_a_step_waits_for_and_no_more(tmp_path):
    chosen = names(up_to(plan(loop(tmp_path)), "iter_1.train"))
    assert chosen == ["prepare_prompts", "iter_0.import_policy", *(f"iter_1.{name}" for name in FIRST[:6])]


def test_a_training_is_killed_and_goes_on_and_one_rank_shares_the_pairs(tmp_path):
    experiment, actor = loop(tmp_path), Actor()
    trial = run_trial(experiment, BOTH, actor, seconds=60)
    assert not trial.failed
    assert not trial.overdue
    assert actor.calls[1:] == [
        (RESUMED, ["iter_1.train"]),
        (RESUMED, ["iter_1.train"]),
        (ONE_RANK, ["iter_1.reference_logps", "iter_1.train"]),
    ]
    killed = trial.killed
    assert killed is not None
    assert (killed.after, len(killed.timings)) == (4, 5)
    pairs = [open_artifact(trial.layout(run).artifact("build_pairs", 1)) for run in (LOOP, RESUMED, ONE_RANK)]
    assert len({artifact.manifest.digest for artifact in pairs}) == 1
    assert trial.seconds.keys() == {LOOP, "oracle on the host", RESUMED, ONE_RANK}
    assert trial.on_host == {"largest": 1e-7}
    trained = [fact["run"] for fact in step_facts(trial) if fact["stage"] == "train"]
    assert trained == [LOOP, RESUMED, ONE_RANK]


def test_a_single_rank_is_not_compared_with_itself(tmp_path):
    actor = Actor()
    run_trial(loop(tmp_path, "parallel=single"), BOTH, actor, seconds=60)
    assert {name for name, _ in actor.calls} == {LOOP, RESUMED}


def test_what_hangs_is_ended(tmp_path):
    """The played training waits for its end, and nothing but the time ends it."""
    actor = Actor()
    experiment = loop(tmp_path).model_copy(update={"name": RESUMED})
    trial = run_trial(experiment, BOTH, actor, seconds=0.3)
    assert trial.overdue
    assert [failure.step.step_id for failure in trial.failed] == ["iter_1.train"]
    assert trial.failed[0].exit_code == -9
