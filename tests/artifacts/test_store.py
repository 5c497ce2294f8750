"""Publish whole or not at all: what is visible is complete, what is damaged is refused, what changed is named."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from nemo_sspo.artifacts.layout import VOLATILE
from nemo_sspo.artifacts.manifest import MANIFEST_NAME
from nemo_sspo.artifacts.store import discard_drafts, is_published, link_tree, open_artifact, publish
from nemo_sspo.errors import UserError
from tests.some_facts import some_facts
from tests.waiting import wait_until


def make(final, text="hello", **settings):
    with publish(final, stage="demo", config=settings, inputs={}) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "data.txt").write_text(text)
        (draft.path / VOLATILE).mkdir()
        (draft.path / VOLATILE / "log.txt").write_text(str(time.time()))
        draft.rows = 3
        draft.facts = some_facts(kept=2)
    return open_artifact(final)


def test_a_published_artifact_opens_with_its_facts(tmp_path):
    artifact = make(tmp_path / "a", eta=30.0)
    assert artifact.file("sub/data.txt").read_text() == "hello"
    assert (artifact.manifest.rows, artifact.manifest.counts["kept"]) == (3, 2)
    assert artifact.manifest.timings["seconds"] >= 0
    with pytest.raises(UserError, match=r"no other.txt in this demo artifact"):
        artifact.file("other.txt")


def test_identity_is_content_alone(tmp_path):
    first, again = make(tmp_path / "a"), make(tmp_path / "b", eta=1.0)
    other = make(tmp_path / "c", text="hullo")
    assert first.manifest.digest == again.manifest.digest != other.manifest.digest


def test_nothing_is_visible_before_the_end_nor_after_a_failure(tmp_path):
    final = tmp_path / "a"
    with pytest.raises(RuntimeError), publish(final, stage="demo", config={}, inputs={}) as draft:
        (draft.path / "half").write_text("x")
        assert not final.exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_joins_before_the_leader_has_made_the_draft(tmp_path, monkeypatch):
    """Another node makes the attempt's directory between the leader's removing an old one and making its own."""
    remove = shutil.rmtree

    def remove_then_join(path, **options):
        remove(path, **options)
        monkeypatch.setattr(shutil, "rmtree", remove)
        path.mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", remove_then_join)
    assert make(tmp_path / "a").manifest.rows == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_whatever_the_writer_makes_of_it(tmp_path, monkeypatch, number):
    with (
        pytest.raises(UserError, match="is full, or the quota on it: free some space"),
        publish(tmp_path / "a", stage="demo", config={}, inputs={}),
    ):
        raise OSError(number, "cannot write")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with (
        pytest.raises(UserError, match="is full, or the quota on it: free some space"),
        publish(tmp_path / "a", stage="demo", config={}, inputs={}),
    ):
        raise RuntimeError("unexpected pos 704 vs 598")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_another_process_or_behind_another_error_is_one_line_too(tmp_path, number):
    """Also where there is room again, because what was half-written has been removed."""
    full = OSError(number, os.strerror(number))
    for error, before in (
        (RuntimeError("unexpected pos 704 vs 598"), full),
        (RuntimeError(f"1 of 2 failed\n{full}"), None),
    ):
        with (
            pytest.raises(UserError, match="is full, or the quota on it: free some space"),
            publish(tmp_path / "a", stage="demo", config={}, inputs={}),
        ):
            raise error from before
    for told in ("/dev/shm/torch_12_34", "/tmp/spool"):
        with (
            pytest.raises(UserError, match=rf"{told}'?\)$"),
            publish(tmp_path / "a", stage="demo", config={}, inputs={}),
        ):
            raise OSError(number, os.strerror(number), told)
    with (
        pytest.raises(RuntimeError, match="unexpected pos"),
        publish(tmp_path / "a", stage="demo", config={}, inputs={}),
    ):
        raise RuntimeError("unexpected pos 704 vs 598") from OSError(errno.EIO, os.strerror(errno.EIO))


def _publish_slowly(final):
    with publish(final, stage="demo", config={}, inputs={}) as draft:
        (draft.path / "half").write_text("x")
        time.sleep(60)


def test_a_killed_publisher_leaves_only_a_draft_which_is_discarded(tmp_path):
    final = tmp_path / "a"
    child = multiprocessing.get_context("fork").Process(target=_publish_slowly, args=(final,))
    child.start()
    wait_until(lambda: list(tmp_path.glob(".a.*/half")))
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not is_published(final)
    assert len(list(tmp_path.iterdir())) == 1
    discard_drafts(final)
    assert list(tmp_path.iterdir()) == []
    make(final)


def test_of_two_publishers_the_first_stays(tmp_path):
    final = tmp_path / "a"
    with publish(final, stage="demo", config={}, inputs={}) as draft:
        (draft.path / "data.txt").write_text("late")
        make(final, text="early")
    assert open_artifact(final).file("sub/data.txt").read_text() == "early"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("damage", ["edit", "truncate", "delete"])
def test_damage_is_refused_by_file_name(tmp_path, damage):
    path = make(tmp_path / "a").path / "sub" / "data.txt"
    if damage == "edit":
        path.write_text("hellO")
    elif damage == "truncate":
        path.write_text("")
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"sub/data\.txt: (differs|missing)"):
        open_artifact(tmp_path / "a")


def test_a_missing_or_foreign_artifact_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such artifact"):
        open_artifact(tmp_path / "none")
    artifact = make(tmp_path / "a")
    manifest = json.loads((artifact.path / MANIFEST_NAME).read_text())
    (artifact.path / MANIFEST_NAME).write_text(json.dumps(manifest | {"surprise": 1}))
    with pytest.raises(UserError, match="not a manifest of this version"):
        open_artifact(tmp_path / "a")


def test_a_tree_is_copied_where_files_cannot_be_shared(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("content")
    link_tree(tmp_path / "a", tmp_path / "linked")
    assert (tmp_path / "linked" / "b" / "file").samefile(tmp_path / "a" / "b" / "file")

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    link_tree(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "copied" / "b" / "file").read_text() == "content"
    assert not (tmp_path / "copied" / "b" / "file").samefile(tmp_path / "a" / "b" / "file")
