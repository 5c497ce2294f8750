"""What the Dockerfile builds, and that example sites name it. `make check-image` runs its lines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_sspo.stages.runner.variables import defaults
from scripts.rehearse_image import BASES, read_image

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGES = {target: read_image(target, DOCKERFILE) for target in ("train", "train-core", "rollout")}
_TORCHS = {"torch", "numpy", "triton"}
_ENGINE = {"transformer_engine", "transformer-engine-torch"}
_OWN = {"train": _ENGINE, "train-core": {*_ENGINE, "megatron-core"}, "rollout": {"vllm", "flashinfer-python"}}
_COMPILED = {*_TORCHS, *_ENGINE, "megatron-core", "vllm", "flashinfer-python", "torchmetrics"}


def test_targets_are_read_from_the_dockerfile() -> None:
    one = "FROM a AS one\nRUN first \\\n    # a comment\n    && second\n"
    text = one + 'FROM b AS two\nENV A=1 \\\n    B="x y"\nWORKDIR /w\n'
    assert read_image("one", text).commands == ("first      && second",)
    two = read_image("two", text)
    assert (two.commands, two.variables, two.directory) == ((), {"A": "1", "B": "x y"}, "/w")


@pytest.mark.parametrize("target", IMAGES)
def test_images_keep_what_their_bases_have_compiled(target: str) -> None:
    (install,) = [command for command in IMAGES[target].commands if "pip install" in command]
    assert "-c /tmp/base.txt" in install
    (pattern,) = re.findall(r"grep -iE '([^']+)' > /tmp/base.txt", install)
    kept = {name for name in _COMPILED if re.match(pattern, f"{name}==1", re.IGNORECASE)}
    assert kept == _TORCHS | _OWN[target]
    assert [name for name in BASES[target].compiled if not re.match(pattern, f"{name}==1", re.IGNORECASE)] == []


def test_the_training_image_is_the_tested_one() -> None:
    (install,) = [command for command in IMAGES["train"].commands if "pip install" in command]
    assert "-c requirements/train-cpu.txt '.[train]'" in install
    # Constraints of NGC's hold for what builds this project as well.
    assert IMAGES["train"].variables["PIP_CONSTRAINT"] == ""
    assert IMAGES["train"].variables["TORCH_CUDA_ARCH_LIST"] == defaults("train")["TORCH_CUDA_ARCH_LIST"]


@pytest.mark.parametrize("target", IMAGES)
def test_any_user_can_write_to_the_images_home(target: str) -> None:
    assert IMAGES[target].variables["HOME"] not in ("/", "/root")
    assert 'install -d -m 1777 "$HOME"' in " ".join(IMAGES[target].commands)
    assert "chmod -R a+rX ." in " ".join(IMAGES[target].commands)


def test_example_sites_name_the_images_that_are_built() -> None:
    targets = set(re.findall(r"--target ([\w-]+) +-t nemo-sspo:\1 ", DOCKERFILE))
    assert targets == set(re.findall(r"^FROM .+ AS ([\w-]+)$", DOCKERFILE, re.MULTILINE)) == set(IMAGES)
    sites = [path.read_text() for path in (ROOT / "conf" / "cluster").glob("*.yaml")]
    named = {Path(image).stem for site in sites for image in re.findall(r"^ +image: (\S+)$", site, re.MULTILINE)}
    assert named == {f"nemo-sspo-{target}" for target in targets - {"train-core"}}  # in place of `train`


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
