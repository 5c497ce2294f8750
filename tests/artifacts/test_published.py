"""What a run has published is read from manifests alone."""

import json
from datetime import timedelta

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import digest_of
from nemo_sspo.artifacts.published import published_steps, read_manifest
from nemo_sspo.artifacts.store import open_artifact, publish
from nemo_sspo.errors import UserError


def put(layout, stage, iteration, shard=None, seconds=2.0):
    final = layout.artifact(stage, iteration, shard)
    final.parent.mkdir(parents=True, exist_ok=True)
    with publish(final, stage=stage, iteration=iteration, shard=shard or 0, config={}, inputs={}) as draft:
        (draft.path / "content").write_text(f"{stage} {iteration} {shard}")
        draft.timings["seconds"] = seconds
    return final


def test_steps_in_the_order_in_which_they_began(tmp_path):
    layout = RunLayout(tmp_path / "run")
    put(layout, "prepare_prompts", 0)
    put(layout, "rollout", 10, 1)
    put(layout, "rollout", 10, 0)
    put(layout, "train", 2, seconds=90.5)
    steps = published_steps(layout)
    assert {step.step_id for step in steps} == {
        "prepare_prompts",
        "iter_10.rollout.00000",
        "iter_10.rollout.00001",
        "iter_2.train",
    }
    begun = [step.started for step in steps]
    assert begun == sorted(begun)
    train = next(step for step in steps if step.step_id == "iter_2.train")
    assert train.ended - train.started == timedelta(seconds=90.5)
    assert train.path == layout.artifact("train", 2)


def test_drafts_and_damaged_manifests_are_not_published(tmp_path):
    layout = RunLayout(tmp_path / "run")
    final = put(layout, "train", 1)
    draft = final.with_name(".train.1.tmp")
    draft.mkdir()
    (draft / "manifest.json").write_bytes((final / "manifest.json").read_bytes())
    (put(layout, "export", 1) / "manifest.json").write_text("{")
    assert [step.step_id for step in published_steps(layout)] == ["iter_1.train"]
    assert read_manifest(layout.artifact("export", 1)) is None
    assert read_manifest(tmp_path / "absent") is None


def test_the_software_is_told_and_is_no_part_of_the_identity(tmp_path, monkeypatch):
    layout = RunLayout(tmp_path / "run")
    first = read_manifest(put(layout, "train", 1))
    monkeypatch.setattr("nemo_sspo.artifacts.store.software_versions", lambda: {"torch": "9"})
    other = read_manifest(put(RunLayout(tmp_path / "other"), "train", 1))
    assert {"python", "numpy", "pyarrow"} <= first.software.keys()
    assert other.software == {"torch": "9"}
    assert first.digest == other.digest


def test_a_run_of_the_first_manifests_is_read(tmp_path):
    """Version 1 has digests alone among its inputs, and neither knobs nor notes; its identity stays what it was."""
    layout = RunLayout(tmp_path / "run")
    final = put(layout, "train", 1)
    written = json.loads((final / "manifest.json").read_text())
    old = {name: value for name, value in written.items() if name not in ("knobs", "notes")}
    old |= {"schema_version": 1, "inputs": {"checkpoint": ["abc"]}}
    (final / "manifest.json").write_text(json.dumps(old))
    (step,) = published_steps(layout)
    assert [(record.step, record.digest) for record in step.manifest.inputs["checkpoint"]] == [("", "abc")]
    files = {name: record["sha256"] for name, record in old["files"].items()}
    assert step.manifest.digest == digest_of({"stage": "train", "schema": 1, "files": files})
    (final / "manifest.json").write_text(json.dumps(old | {"schema_version": 3}))
    assert published_steps(layout) == []
    with pytest.raises(UserError, match="schema version 3, of another release of nemo-sspo: open it with that release"):
        open_artifact(final)
