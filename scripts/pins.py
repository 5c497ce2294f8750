"""The GPU environments' pins, requirements/gpu-*.txt: written anew, or compared with what the extras resolve to.

python -m scripts.pins [--check], with uv on the PATH. It asks the package index, and installs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.12", "3.11")


@dataclass(frozen=True)
class Environment:
    """One GPU environment: the extras of pyproject.toml in it, and how it differs from the CPU environment's pins."""

    name: str
    extras: tuple[str, ...]
    of_gpus: tuple[str, ...]  # pins, in place of the CPU environment's
    free: tuple[str, ...] = ()  # pinned on CPUs, otherwise on GPUs

    @property
    def file(self) -> Path:
        return ROOT / "requirements" / f"gpu-{self.name}.txt"

    @property
    def cpu_file(self) -> Path:
        return ROOT / "requirements" / f"{self.name}-cpu.txt"


ENVIRONMENTS = (
    # Transformer Engine's core library is built for CUDA 12 or 13: torch's. 2.9 is the container's torch.
    Environment("train", ("train", "transformer-engine"), ("torch==2.9.1",)),
    # The newest megatron-core that both Pythons have; it is rehearsed with Transformer Engine 2.9.
    Environment(
        "train-core",
        ("train-core", "transformer-engine"),
        ("torch==2.9.1", "megatron-core==0.16.1"),
        free=("megatron-core",),
    ),
    Environment("rollout", ("rollout",), ("torch==2.13.0",), free=("apache-tvm-ffi",)),
)


def pins(file: Path) -> list[str]:
    """Its lines `name==version`."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def resolve(environment: Environment, python: str, constraints: list[str]) -> list[str]:
    """What the extras resolve to on Linux under these constraints, sorted by name."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        command = ["uv", "pip", "compile", str(ROOT / "pyproject.toml"), "--quiet", "--no-header", "--no-annotate"]
        command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--constraint", file.name]
        command += [part for extra in environment.extras for part in ("--extra", extra)]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()


def write(environment: Environment) -> None:
    """Pin what the newest Python resolves to beside the versions tested on CPUs; the head of the file stays."""
    tested = [pin for pin in pins(environment.cpu_file) if pin.split("==")[0] not in environment.free]
    head = [line for line in environment.file.read_text().splitlines() if line.startswith("#")]
    found = resolve(environment, PYTHONS[0], [*tested, *environment.of_gpus])
    environment.file.write_text("\n".join([*head, *found]) + "\n")


def check(environment: Environment, python: str) -> str:
    """One line: how the pins differ from what they resolve to. An older Python may need fewer of them, never others."""
    pinned = set(pins(environment.file))
    found = set(resolve(environment, python, sorted(pinned)))
    idle = pinned - found if python == PYTHONS[0] else set()
    wrong = [f"not pinned: {', '.join(sorted(found - pinned))}"] if found - pinned else []
    wrong += [f"not needed: {', '.join(sorted(idle))}"] if idle else []
    where = f"{environment.file.relative_to(ROOT)}, Python {python}"
    if wrong:
        raise SystemExit(f"{where}: {'; '.join(wrong)}")
    return f"{where}: {len(found)} packages, closed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if parser.parse_args().check:
        for environment in ENVIRONMENTS:
            for python in PYTHONS:
                print(check(environment, python))
        return
    for environment in ENVIRONMENTS:
        write(environment)


if __name__ == "__main__":
    main()
