"""What the Dockerfile builds, and that example sites name it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("packaging")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_TORCHS = ("torch", "numpy", "transformers", "triton")
_COMPILED = (*_TORCHS, "transformer_engine", "transformer-engine-torch", "vllm", "flashinfer-python", "torchmetrics")
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_images_take_the_pinned_pair() -> None:
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = {canonicalize_name(wanted.name): str(wanted.specifier) for wanted in map(Requirement, optional["train"])}
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


def test_example_sites_name_the_images_that_are_built() -> None:
    targets = {target for target in re.findall(r"--target (\w+) +-t nemo-sspo:\1 ", DOCKERFILE)}
    assert targets == set(re.findall(r"^FROM .+ AS (\w+)$", DOCKERFILE, re.MULTILINE)) == {"train", "rollout"}
    sites = [path.read_text() for path in (ROOT / "conf" / "cluster").glob("*.yaml")]
    named = {Path(image).stem for site in sites for image in re.findall(r"^ +image: (\S+)$", site, re.MULTILINE)}
    assert named == {f"nemo-sspo-{target}" for target in targets}
