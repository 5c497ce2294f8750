"""What a dry run cannot see is told, and what it can see of the hub's cache is checked."""

from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.elsewhere import not_checked
from tests.launch.ready_run import found, only

QUICK = "experiment=quickstart"
MODELS = ["policy=org/model", "oracle.path=org/oracle", "encoder.path=org/encoder"]


def cached(home: Path, repository: str) -> None:
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    (folder / "snapshots" / "0123").mkdir(parents=True)


@pytest.mark.parametrize("setting", ["policy", "oracle.path", "encoder.path"])
def test_offline_a_hub_id_that_no_cache_has_is_refused(place: Path, setting: str) -> None:
    home = f"cluster.rollout.variables.HF_HOME={place / 'home'}"
    problem = only(f"{setting}=org/model", home)
    assert problem.startswith(f"{setting}=org/model: no such directory, and the hub is not asked (HF_HUB_OFFLINE=1)")
    assert f"{place / 'home' / 'hub'} has no org/model" in problem
    assert found(f"{setting}=org/model", "cluster.rollout.variables.HF_HUB_OFFLINE=0") == []
    cached(place / "home", "org/model")
    assert found(f"{setting}=org/model", home) == []


def test_each_hub_id_is_told() -> None:
    told = not_checked(load_experiment([QUICK, *MODELS, "prompts=org/prompts:train"]))
    assert [note.partition(":")[0] for note in told] == [*MODELS, "org/prompts"]
    assert "taken for a hub id; not checked here: its files" in told[0]
    assert not_checked(load_experiment([QUICK])) == []


def test_an_image_is_told_and_the_first_job_that_looks_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    cluster = [QUICK, "cluster=slurm_cpu", "cluster.train.image=/i.sqsh", "cluster.rollout.modules=[python]"]
    what = "not checked here: the packages of cluster."
    assert not_checked(load_experiment(cluster)) == [
        f"{what}rollout, which are in environment modules; prepare_prompts checks them",
        f"{what}train, which are in /i.sqsh; import_policy checks them",
    ]


def test_a_machine_without_sbatch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (note,) = not_checked(load_experiment([QUICK, "cluster=slurm_cpu"]))
    assert note.startswith("not checked here: whether Slurm takes the jobs; there is no sbatch here")
