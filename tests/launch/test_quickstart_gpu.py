"""`experiment=quickstart-gpu` is the quickstart's world on 1, 2 or 4 GPUs, and is planned where there is none."""

import pytest

from nemo_sspo import visible_gpus
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import check_gpus

# What differs from the quickstart: how fast and where, not what is trained on what.
_OF_THE_MACHINE = {"name", "engine", "oracle", "precision", "parallel", "cluster"}


@pytest.fixture(autouse=True)
def _no_gpu_here(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(visible_gpus, "DEVICES", tmp_path)


def test_it_is_the_same_world():
    cpu, gpu = (load_experiment([f"experiment={name}"]).model_dump() for name in ("quickstart", "quickstart-gpu"))
    assert {key for key in cpu if cpu[key] != gpu[key]} == _OF_THE_MACHINE
    assert cpu["oracle"]["path"] == gpu["oracle"]["path"]
    assert gpu["precision"]["kind"] == "bf16"
    assert gpu["engine"]["dtype"] == "bfloat16"
    assert gpu["cluster"]["launcher"] == "torchrun"
    assert gpu["cluster"]["rollout"]["variables"]["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("parallel", "gpus"), [("single", 1), ("tp2", 2), ("tp2_pp2", 4)])
def test_it_takes_the_gpus_of_its_layout(parallel, gpus, precision):
    chosen = ["experiment=quickstart-gpu", f"parallel={parallel}", f"precision={precision}"]
    (missing,) = check_gpus(load_experiment(chosen))
    assert missing.startswith("no GPU is visible")
    assert f"cluster.gpus={gpus} plans for a machine" in missing

    experiment = load_experiment([*chosen, f"cluster.gpus={gpus}"])
    assert list(check_gpus(experiment)) == []
    used = {step.stage: (step.ranks, step.gpus) for step in plan(experiment)}
    assert used["train"] == used["reference_logps"] == (gpus, gpus)
    assert used["rollout"] == used["score"] == used["embed"] == (1, 1)
    assert used["export"] == (1, 0)


def test_what_only_a_gpu_tells_is_noted(tmp_path):
    elsewhere = load_experiment(["experiment=quickstart-gpu", "cluster.gpus=2", "parallel=tp2"])
    (note,) = notes(elsewhere)
    assert note.startswith("cluster.gpus=2, and no GPU can be seen on this machine")
    for gpu in ("nvidia0", "nvidia1"):
        (tmp_path / gpu).touch()
    assert notes(elsewhere) == []
    assert notes(load_experiment(["experiment=quickstart-gpu"])) == []
