"""What is said of an artifact whose settings or inputs are others today."""

from nemo_sspo.artifacts.changes import changes, setting_changes
from nemo_sspo.artifacts.fingerprint import UNSEEN
from nemo_sspo.artifacts.manifest import Manifest
from nemo_sspo.artifacts.store import open_artifact, publish


def made(folder, text="hello", config=None, **inputs) -> Manifest:
    with publish(folder, stage="demo", config=config or {}, inputs=inputs) as draft:
        (draft.path / "data.txt").write_text(text)
    return open_artifact(folder).manifest


def test_the_setting_and_the_input_are_named(tmp_path):
    source, other = made(tmp_path / "s"), made(tmp_path / "t", "other")
    manifest = made(tmp_path / "a", config={"loss.eta": 1.0}, pairs=[open_artifact(tmp_path / "s")])
    assert [record.step for record in manifest.inputs["pairs"]] == ["iter_0.demo"]
    assert changes(manifest, {"loss.eta": 1.0}, {"pairs": [source.digest]}) == []
    assert changes(manifest, {"loss.eta": 2.0}, {"pairs": [source.digest]}) == ["loss.eta: 1.0 -> 2.0"]
    assert changes(manifest, {"loss.eta": 1.0}, {"pairs": [other.digest]}) == ["input pairs: content changed"]
    assert changes(manifest, {"loss.eta": 1.0}, {}) == ["input pairs: 1 artifact -> 0"]
    two = {"pairs": [source.digest], "selection": [other.digest]}
    assert changes(manifest, {"loss.eta": 1.0}, two) == ["input selection: 0 artifacts -> 1"]


def test_a_setting_of_a_section_is_named_alone_and_a_knob_may_differ():
    before = {"engine": {"dtype": "auto", "max_num_seqs": 8, "extra": {}}, "seed": 0}
    after = {"engine.dtype": "float16", "engine.max_num_seqs": 16, "engine.extra": {}, "seed": 0}
    assert setting_changes(before, after, {"engine.max_num_seqs"}) == ["engine.dtype: 'auto' -> 'float16'"]


def test_a_setting_that_is_new_or_gone_has_changed_and_a_file_that_is_not_seen_from_here_has_not():
    assert setting_changes({}, {"data.rule": "drop"}) == ["data.rule: unset -> 'drop'"]
    assert setting_changes({"data.rule": "drop"}, {}) == ["data.rule: 'drop' -> unset"]
    assert setting_changes({"content of policy": "a"}, {}) == []  # in an image that does not have it
    assert setting_changes({"content of policy": "a"}, {"content of policy": UNSEEN}) == []
    assert setting_changes({"content of policy": "a"}, {"content of policy": "b"}) == ["content of policy: 'a' -> 'b'"]
    assert setting_changes({}, {"content of policy": "a"}) == ["content of policy: unset -> 'a'"]
