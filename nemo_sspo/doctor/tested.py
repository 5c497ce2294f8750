"""The versions that were tested together, requirements/*.txt, and how an environment's differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nemo_sspo.artifacts.software import PACKAGES
from nemo_sspo.doctor.check import Check, judged
from nemo_sspo.megatron.versions import TESTED as MEGATRON_CORES

PYTHONS = ("3.11", "3.12")
_PACKAGE = Path(__file__).parents[1]


def versions_check(name: str, facts: Mapping[str, Any]) -> Check:
    """The versions of an environment that can change numbers, against the tested set of its kind."""
    versions: Mapping[str, str] = facts["versions"]
    file = set_of(name, versions, on_gpus=facts.get("cuda") is not None)
    pins = pinned(file, versions["python"])
    other = [f"{package} {versions[package]} (tested: {wanted})" for package, wanted in _differing(versions, pins)]
    if not versions["python"].startswith(tuple(f"{python}." for python in PYTHONS)):
        other.insert(0, f"Python {versions['python']} (tested: {', '.join(PYTHONS)})")
    advice = (
        f"install with -c requirements/{file.name}, as README says; or keep them, and have `nemo-sspo doctor --run` "
        "try them"
    )
    found = "; ".join(other) or f"as in requirements/{file.name}"
    return judged(f"versions of {name}", not other, found, advice=advice, otherwise="warning")


def set_of(name: str, versions: Mapping[str, str], *, on_gpus: bool) -> Path:
    """Pins of the set that an environment belongs to: on GPUs or not, with NeMo or without."""
    kind = "train-core" if name == "train" and "nemo-toolkit" not in versions else name
    packaged = _PACKAGE / "requirements"
    folder = packaged if packaged.is_dir() else _PACKAGE.parent / "requirements"
    return folder / (f"gpu-{kind}.txt" if on_gpus else f"{kind}-cpu.txt")


def pinned(file: Path, python: str) -> dict[str, str]:
    """Version by package, on this Python."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    here = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    pins = (pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(here))
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def _differing(versions: Mapping[str, str], pins: Mapping[str, str]) -> list[tuple[str, str]]:
    """(package, what was tested); a build's own part of a version (+cu128) does not count."""
    tested: dict[str, tuple[str, ...]] = {
        package: (pins[package],) for package in PACKAGES if package in pins and package in versions
    }
    if "megatron-core" in tested and "nemo-toolkit" not in versions:
        tested["megatron-core"] = MEGATRON_CORES
    return [
        (package, ", ".join(known))
        for package, known in tested.items()
        if versions[package].partition("+")[0] not in known
    ]
