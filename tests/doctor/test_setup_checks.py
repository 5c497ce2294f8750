"""Verdicts on a machine: each planted lack fails under its own name, and says what to do."""

from typing import Any

import pytest

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision
from nemo_sspo.doctor.setup_checks import remarks, setup_checks

H100 = {"name": "NVIDIA H100 80GB HBM3", "capability": [9, 0], "memory_gib": 79.1}
MACHINE: dict[str, Any] = {
    "gpus": 2,
    "driver": "570.1",
    "shared_memory_gib": 64.0,
    "disk_free_gib": 100.0,
    "variables": {},
}
VERSIONS = {"torch": "2.9.1+cu128", "megatron-core": "0.15.3", "transformer-engine": "2.9.0"}
FACTS: dict[str, Any] = {"versions": VERSIONS, "broken": {}, "cuda": "12.8", "nccl": "2.27.5", "gpus": [H100, H100]}


def verdicts(precision=None, machine=None, **train):
    environments = {"train": FACTS | train, "rollout": FACTS}
    checks = setup_checks(MACHINE | (machine or {}), environments, precision or Bf16Precision())
    return {check.name: check for check in checks}


def only_failed(found):
    (check,) = [check for check in found.values() if check.verdict != "passed"]
    return check


def test_a_sound_machine_passes_everything():
    found = verdicts()
    assert {check.verdict for check in found.values()} == {"passed"}
    assert found["GPUs of train"].measured == "2 x NVIDIA H100 80GB HBM3, 79.1 GiB"
    assert all(check.stand_in is None for check in found.values())


def test_without_a_gpu_the_processor_stands_in():
    none = {"cuda": None, "nccl": None, "gpus": []}
    machine = MACHINE | {"gpus": 0, "driver": None}
    found = setup_checks(machine, {"train": FACTS | none, "rollout": FACTS | none}, Fp32Precision())
    assert {check.verdict for check in found} == {"passed"}
    assert [check.name for check in found if check.stand_in == "CPU"] == ["GPUs of train", "GPUs of rollout"]


def test_a_build_without_cuda_beside_gpus_fails():
    check = only_failed(verdicts(cuda=None, gpus=[]))
    assert (check.name, check.verdict, check.bound) == ("GPUs of train", "failed", "2")
    assert "built without CUDA; give NEMO_SSPO_TRAIN_PYTHON" in check.note


def test_a_cuda_that_is_too_new_for_the_driver_fails():
    assert "CUDA 12.8, which driver 570.1 may be too old for" in only_failed(verdicts(gpus=[])).note


def test_a_missing_transformer_engine_fails_on_a_gpu_only():
    versions = {name: version for name, version in VERSIONS.items() if name != "transformer-engine"}
    check = only_failed(verdicts(versions=versions))
    assert (check.name, check.measured) == ("Transformer Engine", "missing")
    assert "Transformer Engine" not in verdicts(versions=versions, gpus=[])


@pytest.mark.parametrize(
    ("precision", "capability", "verdict"),
    [
        (Fp8Precision(), [8, 0], "failed"),
        (Fp8Precision(), [9, 0], "passed"),
        (Bf16Precision(), [7, 5], "failed"),
        (Bf16Precision(), [8, 0], "passed"),
        (Bf16Precision(), [10, 0], "passed"),
    ],
)
def test_the_least_capable_gpu_counts(precision, capability, verdict):
    found = verdicts(precision, gpus=[H100, H100 | {"capability": capability}])
    assert found[f"compute capability for {precision.kind}"].verdict == verdict


def test_a_package_that_does_not_load_fails_its_environment():
    check = only_failed(verdicts(broken={"transformer-engine": "ImportError: libcublas.so.12"}))
    assert (check.name, check.note) == ("train environment", "transformer-engine: ImportError: libcublas.so.12")


def test_an_environment_that_is_not_here_is_not_run():
    environments = {"train": {"problem": "lacks vllm"}, "rollout": FACTS}
    found = [check for check in setup_checks(MACHINE, environments, Bf16Precision()) if check.verdict != "passed"]
    assert [(check.name, check.verdict) for check in found] == [
        ("train environment", "not run"),
        ("GPUs of train", "not run"),
    ]
    assert found[0].note == "lacks vllm"


def test_the_shared_memory_of_a_plain_container_fails():
    check = only_failed(verdicts(machine={"shared_memory_gib": 0.0625}))
    assert (check.name, check.note) == ("shared memory", "docker run --ipc=host")


def test_variables_that_slow_down_or_blur_are_remarked():
    found = remarks({"variables": {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "0", "NCCL_DEBUG": "INFO"}})
    assert found == ["NCCL_P2P_DISABLE=1: GPUs of a node then talk through the host"]
