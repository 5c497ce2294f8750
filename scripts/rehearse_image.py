"""Runs the Dockerfile's lines for an image on this machine, in an environment that stands for the base image.

python -m scripts.rehearse_image train --torch-from .venv/train

No container engine is needed. The base has its own versions, most from the package index; what it has compiled for GPUs
is there by name and version alone, but for torch, which is the given environment's. What cannot be seen here: the real
base's other packages, its entrypoint, a driver.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CUDA_HOME = "/usr/local/cuda"
_ALONE = ("nvidia-modelopt", "megatron-core")
"""Installed without what they ask for: among it a torch of the package index."""


@dataclass(frozen=True)
class Base:
    """A base image: packages as they are installed in it.

    Attributes:
        compiled: its own builds, by name and version only.
        installed: other packages, taken from the package index.
        checkouts: projects installed from a checkout (editable), as (name, version, module).
        constraints: of its own for pip, in PIP_CONSTRAINT.
    """

    compiled: dict[str, str]
    installed: dict[str, str]
    checkouts: tuple[tuple[str, str, str], ...]
    constraints: str


BASES = {
    # nemo:25.11. Versions: Megatron-Bridge v0.2.0, which is in it: docs/releases/software-versions.md and uv.lock.
    "train": Base(
        compiled={
            "apex": "0.1",
            "flash-attn": "2.7.4.post1",
            "torch": "2.9.0a0+50eac811a6.nv25.09",
            "torchvision": "0.24.0a0+98f8b375",
            "transformer-engine": "2.9.0+70f53666",
            "triton": "3.4.0",
        },
        installed={
            "datasets": "4.4.1",
            "huggingface-hub": "0.36.0",
            "hydra-core": "1.3.2",
            "numpy": "1.26.4",
            "nvidia-modelopt": "0.39.0",
            "packaging": "25.0",
            "pandas": "2.3.3",
            "protobuf": "6.33.1",
            "pyarrow": "22.0.0",
            "pydantic": "2.12.4",
            "setuptools": "79.0.1",
            "tensorboard": "2.20.0",
            "tokenizers": "0.22.1",
            "transformers": "4.57.1",
            "wandb": "0.23.0",
        },
        checkouts=(
            ("megatron-core", "0.15.0", "megatron.core"),
            ("nemo-toolkit", "2.6.0", "nemo"),
            ("nemo-run", "0.7.0", "nemo_run"),
        ),
        # Older ones hold packaging there, below what hatchling needs.
        constraints="packaging==23.2\n",
    ),
    # nemo:26.06, which has no NeMo: megatron-core, torch and Transformer Engine as docs/images.md has them from public
    # sources; what else it holds is not known, and stands here in the versions of a year later than nemo:25.11.
    "train-core": Base(
        compiled={
            "apex": "0.1",
            "flash-attn": "2.7.4.post1",
            "torch": "2.12.0a0+nv26.04",
            "torchvision": "0.27.0a0",
            "transformer-engine": "2.16.0",
            "triton": "3.6.0",
        },
        installed={
            "huggingface-hub": "0.36.0",
            "megatron-core": "0.18.2",
            "numpy": "2.3.5",
            "packaging": "25.0",
            "protobuf": "6.33.1",
            "pyarrow": "21.0.0",
            "setuptools": "79.0.1",
            "tokenizers": "0.22.1",
            "transformers": "4.57.1",
        },
        checkouts=(),
        constraints="",
    ),
    # vllm-openai:v0.32.0, whose packages are vLLM's own requirements.
    "rollout": Base(
        compiled={
            "flashinfer-python": "0.7.0.post1",
            "torch": "2.13.0",
            "torchaudio": "2.11.0",
            "torchvision": "0.28.0",
            "triton": "3.7.1",
            "vllm": "0.32.0",
        },
        installed={"numpy": "2.3.5", "openai": "3.52.0", "pydantic": "2.14.3", "transformers": "5.19.0"},
        checkouts=(),
        constraints="",
    ),
}


@dataclass(frozen=True)
class Image:
    """What the Dockerfile says of one target: its variables, its working directory, and its commands in order."""

    variables: dict[str, str]
    directory: str
    commands: tuple[str, ...]


def read_image(target: str, text: str) -> Image:
    """The target's ENV, WORKDIR and RUN instructions; COPY is the caller's."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    stage, variables, directory, commands = "", {}, "", []
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split()[-1]
        elif stage != target:
            continue
        elif word == "ENV":
            variables |= {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', rest)}
        elif word == "WORKDIR":
            directory = rest
        elif word == "RUN":
            commands.append(rest)
    return Image(variables, directory, tuple(commands))


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3*/site-packages")
    return found


def name_only(folder: Path, name: str, version: str) -> None:
    """A package that pip sees and nobody can import."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("base\n")
    (info / "RECORD").write_text("")


def make_base(base: Base, torch_from: Path, folder: Path) -> Path:
    """A system environment and, over it, the virtual one whose `python` a container starts. Returns the latter."""
    system, inner = folder / "system", folder / "venv"
    python = torch_from / "bin" / "python"
    run([str(python), "-m", "venv", str(system)])
    pip = [str(system / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, *(f"{name}=={version}" for name, version in base.installed.items() if name not in _ALONE)])
    run([*pip, "--no-deps", *(f"{name}=={version}" for name, version in base.installed.items())])
    run([*pip, "filelock", "fsspec", "jinja2", "networkx", "sympy", "typing_extensions"])  # what torch imports
    there = site_packages(system)
    for name, version in base.compiled.items():
        name_only(there, name, version)
    for name in ("torch", "torchgen", "functorch", "nvidia", "triton"):
        if (package := site_packages(torch_from.resolve()) / name).exists():
            (there / name).symlink_to(package)
    run([str(system / "bin" / "python"), "-m", "venv", "--without-pip", str(inner)])
    (site_packages(inner) / "system.pth").write_text(f"{there}\n")
    for name, version, module in base.checkouts:
        checkout = folder / "opt" / name
        package = checkout / module.replace(".", "/")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
        project = f'[project]\nname = "{name}"\nversion = "{version}"\n[tool.setuptools]\npackages = ["{module}"]\n'
        (checkout / "pyproject.toml").write_text(project)
        install = [str(inner / "bin" / "python"), *pip[1:], "--no-deps", "--no-build-isolation", "--editable"]
        run([*install, str(checkout)])
    return inner


def run(command: list[str], **options: object) -> None:
    subprocess.run(command, check=True, **options)  # type: ignore[call-overload]


def versions(inner: Path, names: list[str]) -> dict[str, str]:
    """Of the packages as the image's Python sees them."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run(
        [str(inner / "bin" / "python"), "-c", code, *names], check=True, text=True, capture_output=True
    )
    return dict(zip(names, done.stdout.split(), strict=True))


def build(target: str, torch_from: Path, folder: Path) -> None:
    """Run the target's commands; paths that they name lie below the folder."""
    base, image = BASES[target], read_image(target, (ROOT / "Dockerfile").read_text())
    inner = make_base(base, torch_from, folder)

    def here(text: str) -> str:
        return re.sub(r"(?<![\w./-])/(?=(opt|home|tmp|usr/local/bin)/)", f"{folder}/", text)

    (folder / "constraint.txt").write_text(base.constraints)
    inherited = {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
    variables = inherited | {"PIP_CONSTRAINT": str(folder / "constraint.txt"), "HOME": str(folder)}
    variables |= {"PATH": f"{inner}/bin:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "", "CUDA_HOME": CUDA_HOME}
    variables |= {name: here(value) for name, value in image.variables.items()}
    (folder / "tmp").mkdir()
    (folder / "home").mkdir()
    directory = Path(here(image.directory))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, text=True, capture_output=True).stdout
    for name in tracked.split("\0")[:-1]:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, directory / name)
    before = versions(inner, list(base.compiled))
    for command in image.commands:
        print(f"RUN {' '.join(command.split())}", flush=True)
        run(["bash", "-o", "pipefail", "-c", here(command)], cwd=directory, env=variables)
    if (after := versions(inner, list(base.compiled))) != before:
        raise SystemExit(f"replaced what the base has compiled: {before} became {after}")
    run([str(inner / "bin" / "nemo-sspo"), "--help"], cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    print(f"{target}: built; {', '.join(f'{name} {version}' for name, version in after.items())} stay")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(BASES))
    parser.add_argument("--torch-from", type=Path, required=True, help="an environment whose torch the base has")
    parser.add_argument("--keep", type=Path, help="build here, and leave it")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True)
        build(options.target, options.torch_from.resolve(), options.keep.resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            build(options.target, options.torch_from.resolve(), Path(folder))


if __name__ == "__main__":
    main()
