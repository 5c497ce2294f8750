"""A path that the image of a stage does not have is refused before a job waits in a queue for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.check_mounts import check_mounts
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

    def check(*overrides: str) -> list[str]:
        given = [f"policy={tmp_path}/models/policy", f"oracle.path={tmp_path}/models/oracle", "prompts=prompts.jsonl"]
        return list(check_mounts(load_experiment(["experiment=llama3-70b", "cluster=slurm_pyxis", *given, *overrides])))

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


def test_ids_are_left_to_the_stages_and_apptainer_brings_the_home_directory(found: Found, tmp_path: Path) -> None:
    assert found("policy=org/model", "oracle.path=llm-blender/PairRM") == []
    (tmp_path / "home").mkdir()
    (tmp_path / "models").rename(tmp_path / "home" / "models")
    at_home = (f"policy={tmp_path}/home/models/policy", f"oracle.path={tmp_path}/home/models/oracle")
    assert len(found(*at_home)) == 3
    assert found(*at_home, "cluster.train.container=apptainer", "cluster.rollout.container=apptainer") == []


def test_it_is_part_of_the_preflight() -> None:
    assert check_mounts in CHECKS
