"""What one environment has: `python -m nemo_sspo.doctor.probe train`, in that environment; prints one JSON line.

torch, megatron.core and Transformer Engine are imported, since what is installed may not load. What fails to
load is named under ``broken``, with its error in one line.
"""

import importlib
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

from nemo_sspo.artifacts.software import software_versions
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.variables import set_defaults


def main(environment: Literal["train", "rollout"]) -> None:
    """Print the facts of the environment that this interpreter belongs to."""
    set_defaults(environment)
    broken: dict[str, str] = {}
    facts: dict[str, Any] = {"versions": software_versions(), "broken": broken}
    _try(broken, "torch", lambda: facts.update(_torch()))
    if environment == "train" and "torch" not in broken:
        _try(broken, "NeMo and megatron-core", _supported_versions)
        if find_spec("transformer_engine") is not None and facts["gpus"]:
            _try(broken, "transformer-engine", lambda: importlib.import_module("transformer_engine.pytorch"))
    print(json.dumps(facts))


def _torch() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"cuda": torch.version.cuda, "gpus": [], "nccl": None}
    if torch.cuda.is_available():
        facts["architectures"] = torch.cuda.get_arch_list()
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        facts["gpus"] = [_gpu(torch.cuda.get_device_properties(n)) for n in range(torch.cuda.device_count())]
    return facts


def _gpu(properties: Any) -> dict[str, Any]:
    return {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "memory_gib": round(properties.total_memory / 2**30, 2),
    }


def _supported_versions() -> None:
    from nemo_sspo.megatron.binding import binding

    binding("auto").require_versions()


def _try(broken: dict[str, str], name: str, step: Callable[[], object]) -> None:
    try:
        step()
    except UserError as error:
        broken[name] = str(error)
    except Exception as error:  # whatever a package raises while it is imported
        broken[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


if __name__ == "__main__":
    main("train" if sys.argv[1] == "train" else "rollout")
