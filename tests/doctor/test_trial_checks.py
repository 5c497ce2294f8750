"""Every check of `doctor --run` fails by the fault that it is for, and by no other."""

import math
from types import SimpleNamespace

import pytest

from nemo_sspo.doctor import trial as trial_module
from nemo_sspo.doctor.trial import ONE_RANK, RESUMED, run_trial
from nemo_sspo.doctor.trial_checks import trial_checks
from tests.doctor.made_trial import Actor, loop

NAMES = [
    "step-1 closed form",
    "vLLM against Megatron",
    "PairRM against the host",
    "two steps over NCCL",
    "kill and resume",
    "export reloaded",
]


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """What the oracle on the host answers."""
    answer = SimpleNamespace(stdout='{"largest": 1e-7, "mean": 1e-9, "rows": 960}\n', returncode=0)
    monkeypatch.setattr(trial_module.subprocess, "run", lambda *_, **__: answer)
    return answer


def checks(folder, actor=None, *overrides, gpus=0, environments=("train", "rollout")):
    trial = run_trial(loop(folder, *overrides, gpus=gpus), set(environments), actor or Actor(), seconds=60)
    return {check.name: check for check in trial_checks(trial)}


def failed(found):
    return [check.name for check in found.values() if check.verdict == "failed"]


def test_a_sound_loop_passes_and_names_what_stood_in(tmp_path):
    found = checks(tmp_path)
    assert list(found) == NAMES
    assert {check.verdict for check in found.values()} == {"passed"}
    assert found["two steps over NCCL"].stand_in == "gloo"
    assert all(check.stand_in for check in found.values())
    assert found["two steps over NCCL"].measured == pytest.approx(1e-6, rel=1e-3)
    assert found["kill and resume"].measured == 0
    assert found["kill and resume"].note.startswith("killed after step 4 of 12")


def test_on_gpus_nothing_stands_in(tmp_path):
    found = checks(tmp_path, gpus=4)
    assert {check.stand_in for check in found.values()} == {None}
    alone = checks(tmp_path / "alone", gpus=1)["two steps over NCCL"]
    assert (alone.verdict, alone.stand_in) == ("passed", "1 rank")


def test_a_reference_of_another_policy(tmp_path):
    actor = Actor()
    actor.counts["train", 1]["step1_loss"] = 40.1
    assert failed(checks(tmp_path, actor)) == ["step-1 closed form"]


def test_an_engine_with_other_weights(tmp_path):
    actor = Actor()
    actor.counts["reference_logps", 1]["largest_difference"] = 0.01
    assert failed(checks(tmp_path, actor)) == ["vLLM against Megatron"]


def test_an_export_of_other_weights(tmp_path):
    actor = Actor()
    actor.counts["reference_logps", 2]["largest_difference"] = 3.0
    assert failed(checks(tmp_path, actor)) == ["export reloaded"]


def test_a_training_that_moved_nothing_proves_no_export(tmp_path):
    actor = Actor()
    actor.counts["train", 1] |= {"d_chosen_last": 1e-4, "d_rejected_last": -1e-4}
    assert failed(checks(tmp_path, actor)) == ["export reloaded"]


def test_an_oracle_that_differs_on_the_host(tmp_path, host):
    host.stdout = '{"largest": 0.02, "mean": 1e-3, "rows": 960}\n'
    assert failed(checks(tmp_path)) == ["PairRM against the host"]
    assert failed(checks(tmp_path / "gpu", gpus=1)) == []  # its backbone is bf16 there
    host.returncode = 1
    found = checks(tmp_path / "broken")
    assert found["PairRM against the host"].verdict == "not run"


@pytest.mark.parametrize("name", ["preference_loss", "grad_norm"])
def test_ranks_that_compute_something_else(tmp_path, name):
    actor = Actor()
    actor.metrics[ONE_RANK][1][name] *= 1.01
    assert failed(checks(tmp_path, actor)) == ["two steps over NCCL"]
    actor.metrics[ONE_RANK][1][name] = math.nan
    assert failed(checks(tmp_path / "nan", actor)) == ["two steps over NCCL"]


def test_a_resumed_training_that_goes_elsewhere(tmp_path):
    actor = Actor()
    actor.metrics[RESUMED][9]["preference_loss"] *= 1.01
    assert failed(checks(tmp_path, actor)) == ["kill and resume"]


def test_a_training_that_begins_anew_was_not_resumed(tmp_path):
    """Its figures are the same: only the seconds of its first steps tell."""
    actor = Actor()
    actor.resumes = False
    found = checks(tmp_path, actor)
    assert failed(found) == ["kill and resume"]
    assert found["kill and resume"].measured == "begun anew"


def test_a_training_that_saved_no_state_was_not_killed(tmp_path):
    actor = Actor()
    actor.saves = False
    found = checks(tmp_path, actor)
    assert failed(found) == ["kill and resume"]
    assert found["kill and resume"].measured == "not killed"


def test_a_part_of_an_image_is_not_run_rather_than_passed(tmp_path):
    found = checks(tmp_path, environments=("rollout",))
    assert [name for name in found if found[name].verdict == "passed"] == ["PairRM against the host"]
    assert {check.verdict for name, check in found.items() if name != "PairRM against the host"} == {"not run"}


def test_a_step_that_fails_is_a_check_of_its_own(tmp_path):
    actor = Actor()
    trial = run_trial(loop(tmp_path).model_copy(update={"name": RESUMED}), {"train", "rollout"}, actor, seconds=0.3)
    first = trial_checks(trial)[0]
    assert (first.name, first.verdict, first.measured) == ("iter_1.train of resumed", "failed", "exit code -9")
    assert "its time was over" in first.note
