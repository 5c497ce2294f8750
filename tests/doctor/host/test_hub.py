"""Offline mode without the model, a cache that cannot be written to, and downloads that were cut."""

import os

import pytest

from nemo_sspo.doctor.host.hub import hub_checks
from tests.doctor.by_name import by_name, wrong


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and a hub that may be asked."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def checks(experiment, *overrides):
    local = "encoder.path=/absent", "oracle.path=/absent", "~cluster.rollout.variables"
    return hub_checks(experiment(*local, *overrides))


def test_a_hub_that_may_be_asked(experiment):
    assert wrong(checks(experiment, "policy=owner/model")) == []
    assert by_name(checks(experiment, "policy=owner/model"))["hub cache of train"].measured == "online; owner/model"


def test_offline_without_the_model(experiment, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert wrong(checks(experiment, "policy=owner/model")) == [("policy", "failed")]
    folder = cache / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    assert wrong(checks(experiment, "policy=owner/model")) == []


def test_a_cache_that_cannot_be_written_to(experiment, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    both = ["hub cache of train", "hub cache of rollout"]
    assert wrong(checks(experiment, "policy=owner/model")) == [(name, "failed") for name in both]
    assert wrong(checks(experiment, "policy=/absent")) == [(name, "warning") for name in both]


def test_downloads_that_were_cut(experiment, cache):
    blobs = cache / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"x" * 1000)
    check = by_name(checks(experiment))["downloads of train"]
    assert (check.verdict, check.measured) == ("warning", "1 cut off, 0.0 GiB")
