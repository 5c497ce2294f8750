"""Verdicts on a machine: each planted lack fails under its own name, and says what to do."""

from typing import Any

import pytest

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision
from nemo_sspo.doctor.setup_checks import setup_checks

H100 = {"name": "NVIDIA H100 80GB HBM3", "capability": [9, 0], "memory_gib": 79.1}
MACHINE: dict[str, Any] = {
    "gpus": 2,
    "driver": "570.1",
}
VERSIONS = {
    "python": "3.12.11",
    "torch": "2.9.1+cu128",
    "nemo-toolkit": "2.7.3",
    "megatron-core": "0.15.3",
    "transformer-engine": "2.9.0",
}
ROLLOUT = {"python": "3.12.11", "torch": "2.13.0+cu130", "vllm": "0.32.0"}
FACTS: dict[str, Any] = {"versions": VERSIONS, "broken": {}, "cuda": "12.8", "nccl": "2.27.5", "gpus": [H100, H100]}
FACTS["architectures"] = ["sm_80", "sm_90", "compute_90"]


def verdicts(precision=None, machine=None, **train):
    environments = {"train": FACTS | train, "rollout": FACTS | {"versions": ROLLOUT}}
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
    found = setup_checks(
        machine, {"train": FACTS | none, "rollout": FACTS | none | {"versions": ROLLOUT}}, Fp32Precision()
    )
    assert {check.verdict for check in found} == {"passed"}
    assert [check.name for check in found if check.stand_in == "CPU"] == ["GPUs of train", "GPUs of rollout"]


def test_a_build_without_cuda_beside_gpus_fails():
    check = only_failed(verdicts(cuda=None, gpus=[]))
    assert (check.name, check.verdict, check.bound) == ("GPUs of train", "failed", "2")
    assert "built without CUDA; give NEMO_SSPO_TRAIN_PYTHON" in check.note


def test_a_cuda_that_is_too_new_for_the_driver_fails():
    assert "CUDA 13.0, which needs driver 580.65, and this is 570.1" in only_failed(verdicts(cuda="13.0", gpus=[])).note
    # Every CUDA 12 runs with it: something else keeps the GPUs away.
    assert "new enough for its torch's CUDA 12.8" in only_failed(verdicts(gpus=[])).note
    assert "no driver answers" in only_failed(verdicts(gpus=[], machine={"driver": None})).note


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
    assert found[f"GPUs for {precision.kind}"].verdict == verdict


def test_a_package_that_does_not_load_fails_its_environment():
    check = only_failed(verdicts(broken={"transformer-engine": "ImportError: libcublas.so.12"}))
    assert (check.name, check.note.startswith("transformer-engine: ImportError: libcublas.so.12;")) == (
        "train environment",
        True,
    )


def test_an_environment_that_is_not_here_is_not_run():
    environments = {"train": {"problem": "lacks vllm"}, "rollout": FACTS | {"versions": ROLLOUT}}
    found = [check for check in setup_checks(MACHINE, environments, Bf16Precision()) if check.verdict != "passed"]
    assert [(check.name, check.verdict) for check in found] == [
        ("train environment", "not run"),
        ("GPUs of train", "not run"),
    ]
    assert found[0].note == "lacks vllm"


@pytest.mark.parametrize(
    ("architectures", "verdict"),
    [
        *((["sm_80", "sm_90"], "passed"), (["sm_80", "compute_80"], "passed"), (["sm_90a"], "passed"), ([], "passed")),
        *((["sm_80", "sm_86"], "failed"), (["sm_100"], "failed")),
    ],
)
def test_a_torch_without_kernels_for_a_gpu_fails(architectures, verdict):
    assert verdicts(architectures=architectures)["kernels of train"].verdict == verdict


def test_versions_that_were_not_tested_warn():
    (check,) = [
        check
        for check in verdicts(versions=VERSIONS | {"megatron-core": "0.15.2"}).values()
        if check.verdict != "passed"
    ]
    assert (check.name, check.verdict) == ("versions of train", "warning")
    assert check.measured == "megatron-core 0.15.2 (tested: 0.15.3)"
    assert "-c requirements/gpu-train.txt" in check.note
