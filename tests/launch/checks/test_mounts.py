"""A path that the image of a stage does not have is refused before a job waits in a queue for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.checks.mounts import check_downloads, check_mounts
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.preflight import CHECKS

Found = Callable[..., list[str]]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """What is refused of a run from `project`, whose policy and oracle lie elsewhere."""
    (tmp_path / "project").mkdir()
    (tmp_path / "models" / "policy").mkdir(parents=True)
    (tmp_path / "models" / "oracle").mkdir()
    (tmp_path / "project" / "prompts.jsonl").write_text("")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def check(*overrides: str) -> list[str]:
        given = [f"policy={tmp_path}/models/policy", f"oracle.path={tmp_path}/models/oracle", "prompts=prompts.jsonl"]
        experiment = load_experiment(["experiment=llama3-70b", "cluster=slurm_pyxis", *given, *overrides])
        return [*check_mounts(experiment), *check_downloads(experiment)]

    return check


def mounts(*folders: object) -> tuple[str, str]:
    given = json.dumps([f"{folder}:{folder}" for folder in folders])
    return f"cluster.train.mounts={given}", f"cluster.rollout.mounts={given}"


def test_what_is_not_mounted_is_named_with_the_mounts_and_what_to_do(found: Found, tmp_path: Path) -> None:
    models, project = tmp_path / "models", tmp_path / "project"
    problems = found()
    seen = f"which has {project}, {project}/runs/llama3-70b, /lustre; add"
    assert problems == [
        f"policy: {models}/policy is not seen in the image of prepare_prompts, rollout_held_out, rollout, {seen} "
        f"{models}/policy:{models}/policy to cluster.rollout.mounts, or give a path below one of these",
        f"policy: {models}/policy is not seen in the image of import_policy, export, {seen} "
        f"{models}/policy:{models}/policy to cluster.train.mounts, or give a path below one of these",
        f"oracle.path: {models}/oracle is not seen in the image of score, evaluate, {seen} "
        f"{models}/oracle:{models}/oracle to cluster.rollout.mounts, or give a path below one of these",
    ]
    assert found(*mounts(models)) == []
    assert len(found(*mounts(models / "policy"))) == 1


def test_each_file_of_a_list_is_looked_at(found: Found, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.jsonl").write_text("")
    problems = found(f"prompts=[prompts.jsonl,{tmp_path}/data/b.jsonl,c.jsonl]", *mounts(tmp_path / "models"))
    assert [problem.partition(" is not seen")[0] for problem in problems] == [f"prompts[2]: {tmp_path}/data/b.jsonl"]


def test_a_mount_under_another_name_does_not_help(found: Found, tmp_path: Path) -> None:
    moved = json.dumps([f"{tmp_path}/models:/models:ro"])
    assert len(found(f"cluster.train.mounts={moved}", f"cluster.rollout.mounts={moved}")) == 3


def test_what_a_link_leads_to_must_be_mounted_too(found: Found, tmp_path: Path) -> None:
    (tmp_path / "project" / "policy").symlink_to(tmp_path / "models" / "policy")
    linked = ("policy=policy", *mounts(tmp_path / "models" / "oracle"))
    assert {problem.partition(" is not")[0] for problem in found(*linked)} == {f"policy: {tmp_path}/models/policy"}


def test_without_an_image_everything_is_seen(found: Found, tmp_path: Path) -> None:
    none = ("cluster.train.image=null", "cluster.rollout.image=null")
    assert found(*none) == []
    alone = found(*none, "cluster.images={score: /i/pairrm.sqsh}")
    assert [problem.partition(",")[0] for problem in alone] == [
        f"oracle.path: {tmp_path}/models/oracle is not seen in the image of score"
    ]


WITHOUT_HF_HOME = "~cluster.train.variables.HF_HOME", "~cluster.rollout.variables.HF_HOME"
HUB_IDS = "policy=org/model", "oracle.path=llm-blender/PairRM"


def test_a_hub_id_is_refused_where_its_download_is_lost(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    below = f"below {project}, {project}/runs/llama3-70b, /lustre"
    lost = "is a hub id, which every task of"
    give = "would download into its own container; give a directory, or set"
    assert found(*HUB_IDS, *WITHOUT_HF_HOME) == [
        f"policy: org/model {lost} prepare_prompts, rollout_held_out, rollout {give} "
        f"cluster.rollout.variables.HF_HOME to one {below}",
        f"policy: org/model {lost} import_policy, export {give} cluster.train.variables.HF_HOME to one {below}",
        f"oracle.path: llm-blender/PairRM {lost} score, evaluate {give} "
        f"cluster.rollout.variables.HF_HOME to one {below}",
    ]
    assert len(found(*HUB_IDS, "cluster.rollout.variables.HF_HOME=/scratch")) == 2
    monkeypatch.setenv("HF_HUB_CACHE", "/lustre/mine")
    assert found(*HUB_IDS, *WITHOUT_HF_HOME) == []


def test_a_local_pairrm_fetches_the_backbone_that_it_names_by_a_hub_id(found: Found, tmp_path: Path) -> None:
    pairrm = tmp_path / "project" / "pairrm"
    pairrm.mkdir()
    named = {"ranker_type": "pairranker", "model_type": "deberta", "model_name": "microsoft/deberta-v3-large"}
    (pairrm / "config.json").write_text(json.dumps(named))
    (pairrm / "pytorch_model.bin").touch()
    local = ("oracle.path=pairrm", *mounts(tmp_path / "models"), *WITHOUT_HF_HOME)
    (problem,) = found(*local)
    assert problem.startswith(
        "oracle.path: microsoft/deberta-v3-large is a hub id, which every task of score, evaluate"
    )
    (note,) = notes(load_experiment(["experiment=quickstart", "oracle.path=pairrm"]))
    assert "names its backbone by the hub id microsoft/deberta-v3-large" in note
    (pairrm / "microsoft" / "deberta-v3-large").mkdir(parents=True)
    assert found(*local) == notes(load_experiment(["experiment=quickstart", "oracle.path=pairrm"])) == []


def test_a_cache_below_a_mount_is_enough_and_apptainer_brings_the_home_directory(found: Found, tmp_path: Path) -> None:
    assert found(*HUB_IDS) == []
    (tmp_path / "home").mkdir()
    (tmp_path / "models").rename(tmp_path / "home" / "models")
    at_home = (f"policy={tmp_path}/home/models/policy", f"oracle.path={tmp_path}/home/models/oracle")
    assert len(found(*at_home)) == 3
    apptainer = "cluster.train.container=apptainer", "cluster.rollout.container=apptainer"
    assert found(*at_home, *apptainer) == found(*HUB_IDS, *apptainer, *WITHOUT_HF_HOME) == []


def test_it_is_part_of_the_preflight() -> None:
    assert {check_mounts, check_downloads} <= set(CHECKS)
