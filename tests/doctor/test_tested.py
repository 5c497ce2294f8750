"""Which set of pins an environment is held against, and what counts as a difference."""

import pytest

from nemo_sspo.doctor.tested import pinned, set_of, versions_check

NEMO = {"python": "3.12.3", "torch": "2.9.1", "nemo-toolkit": "2.7.3", "megatron-core": "0.15.3"}
CORE = {"python": "3.11.7", "torch": "2.9.1+cu128", "megatron-core": "0.16.1"}


@pytest.mark.parametrize(
    ("name", "versions", "on_gpus", "file"),
    [
        ("train", NEMO, True, "gpu-train.txt"),
        ("train", CORE, True, "gpu-train-core.txt"),
        ("train", CORE, False, "train-core-cpu.txt"),
        ("rollout", {}, True, "gpu-rollout.txt"),
        ("rollout", {}, False, "rollout-cpu.txt"),
    ],
)
def test_the_set_follows_from_what_is_installed(name, versions, on_gpus, file):
    found = set_of(name, versions, on_gpus=on_gpus)
    assert found.name == file
    assert "transformers" in pinned(found, "3.11.7")


def test_a_pin_may_depend_on_the_python():
    file = set_of("train", CORE, on_gpus=False)
    assert pinned(file, "3.11.7")["megatron-core"] == "0.16.1"
    assert pinned(file, "3.12.1")["megatron-core"] == "0.19.2"


def verdict(versions, cuda="12.8"):
    return versions_check("train", {"versions": versions, "cuda": cuda}).verdict


def test_a_build_of_a_tested_version_is_tested():
    assert verdict(NEMO) == verdict(NEMO | {"torch": "2.9.1+cu130"}) == "passed"
    assert verdict(NEMO | {"torch": "2.9.0a0+50eac811a6.nv25.09"}) == "warning"


def test_without_nemo_every_megatron_core_that_is_tested_is_one():
    for version, wanted in (("0.15.3", "passed"), ("0.19.2", "passed"), ("0.15.2", "warning"), ("0.20.0", "warning")):
        assert verdict(CORE | {"megatron-core": version}) == wanted
    assert verdict(NEMO | {"megatron-core": "0.16.1"}) == "warning"


def test_a_python_that_was_never_tested():
    assert verdict(NEMO | {"python": "3.13.1"}) == "warning"
    assert verdict(NEMO | {"python": "3.1.1"}) == "warning"
