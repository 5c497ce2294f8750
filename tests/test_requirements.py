"""What pyproject.toml asks for can be installed: the tested versions meet it, and what NeMo and Megatron ask for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest

pytest.importorskip("packaging")
pytest.importorskip("nemo.package_info")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nemo_sspo.config.variants import SentenceEncoder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
TRAIN = [Requirement(line) for line in (*PROJECT["dependencies"], *OPTIONAL["train"])]
FOLLOWED = {"nemo-toolkit", "megatron-core", "lightning"}


def _asked_for() -> Iterator[tuple[str, Requirement]]:
    """(who asks, what for) of the project, and of the packages it builds on with the extras it names."""
    for wanted in TRAIN:
        yield "nemo-sspo", wanted
        name = canonicalize_name(wanted.name)
        for line in requires(name) or [] if name in FOLLOWED else []:
            needed = Requirement(line)
            extras = ("", *wanted.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                yield name, needed


def test_the_tested_versions_meet_every_requirement_of_the_training_environment() -> None:
    wrong = []
    for who, needed in _asked_for():
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            continue  # of GPU builds alone
        if not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{who} asks for {needed}, tested is {found}")
    assert wrong == []


def test_the_tested_versions_meet_the_extra_for_rollout_which_brings_the_default_encoder() -> None:
    lines = (ROOT / "requirements" / "rollout-cpu.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    tested = {canonicalize_name(name): pin for name, pin in pins.items()}
    wanted = {canonicalize_name(line.name): line for line in map(Requirement, OPTIONAL["rollout"])}
    assert {name for name, line in wanted.items() if name in tested and tested[name] not in line.specifier} == set()
    assert canonicalize_name(SentenceEncoder().path.removeprefix("package:")) in wanted


_TORCHS = ("torch", "numpy", "transformers", "triton")
_COMPILED = (*_TORCHS, "transformer_engine", "transformer-engine-torch", "vllm", "flashinfer-python", "torchmetrics")
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_images_take_the_pinned_pair() -> None:
    pins = {canonicalize_name(wanted.name): str(wanted.specifier) for wanted in TRAIN}
    found = dict(re.findall(r"(nemo-toolkit|megatron-core)(==\S+)", DOCKERFILE))
    assert found == {name: pins[name] for name in ("nemo-toolkit", "megatron-core")}


def test_images_keep_what_their_bases_have_compiled() -> None:
    installs = [part for part in re.split(r"\n|&&", DOCKERFILE) if "pip install" in part]
    assert len(installs) == 3
    assert all("--no-deps" in part or "-c /tmp/constraints.txt" in part for part in installs)
    kept = [re.compile(pattern, re.IGNORECASE) for pattern in re.findall(r"grep -iE '([^']+)'", DOCKERFILE)]
    train, rollout = ({name for name in _COMPILED if pattern.match(f"{name}==1")} for pattern in kept)
    assert train == {*_TORCHS, "transformer_engine", "transformer-engine-torch"}
    assert rollout == {*_TORCHS, "vllm", "flashinfer-python"}


def test_the_check_for_a_hidden_copy_reads_as_python() -> None:
    """It runs where the packages are: here they are the ones installed."""
    (code,) = re.findall(r"python -c '([^']+)'", DOCKERFILE)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
