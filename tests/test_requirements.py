"""What pyproject.toml and the README ask for can be installed: the pins meet it, and what NeMo and Megatron ask for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest

pytest.importorskip("packaging")
pytest.importorskip("nemo.package_info")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nemo_sspo.config.encoders import SentenceEncoder
from scripts.install_lines import readme_lines
from scripts.pins import ENVIRONMENTS, PYTHONS, Environment, pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
TRAIN = [Requirement(line) for line in (*PROJECT["dependencies"], *OPTIONAL["train"])]
FOLLOWED = {"nemo-toolkit", "megatron-core", "lightning"}


def _versions(file: Path) -> dict[str, str]:
    """Version by package on this Python; each is pinned once."""
    lines = [line for line in map(Requirement, pins(file)) if line.marker is None or line.marker.evaluate()]
    found = {canonicalize_name(line.name): next(iter(line.specifier)).version for line in lines}
    assert len(found) == len(lines)
    return found


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
    tested = _versions(ROOT / "requirements" / "rollout-cpu.txt")
    wanted = {canonicalize_name(line.name): line for line in map(Requirement, OPTIONAL["rollout"])}
    asked_for = [*map(Requirement, PROJECT["dependencies"]), *wanted.values()]
    assert [str(line) for line in asked_for if (pin := tested.get(line.name)) and pin not in line.specifier] == []
    assert canonicalize_name(SentenceEncoder().path.removeprefix("package:")) in wanted


def test_the_environment_without_nemo_differs_from_the_one_with_it_in_two_versions_and_meets_its_extra() -> None:
    tested = _versions(ROOT / "requirements" / "train-cpu.txt")
    pinned = [Requirement(line) for line in pins(ROOT / "requirements" / "train-core-cpu.txt")]
    names = {canonicalize_name(pin.name) for pin in pinned}
    assert {pin.name for pin in pinned if tested[canonicalize_name(pin.name)] not in pin.specifier} == {
        "megatron-core",
        "numpy",
    }
    assert not [name for name in names if "nemo" in name or "lightning" in name]
    wanted = {canonicalize_name(line.name): line for line in map(Requirement, OPTIONAL["train-core"])}
    # The Makefile's, and what builds Transformer Engine.
    assert wanted.keys() - names == {"torch", "setuptools", "wheel"}
    for pin in pinned:
        if line := wanted.get(canonicalize_name(pin.name)):
            (exact,) = pin.specifier
            assert exact.version in line.specifier, (str(pin), str(line))


def test_every_requirement_has_an_upper_bound() -> None:
    """A package index holds what is released tomorrow too."""
    lines = [*PROJECT["dependencies"], *(line for extra in OPTIONAL.values() for line in extra)]
    bounds = {"<", "<=", "==", "~="}
    assert [line for line in lines if not bounds & {part.operator for part in Requirement(line).specifier}] == []


def test_a_containers_own_torch_is_kept() -> None:
    """NGC's are pre-releases with a local version: 2.9.0a0+… sorts below 2.9."""
    (torch,) = (wanted.specifier for wanted in TRAIN if wanted.name == "torch")
    assert "2.9.0a0+50eac811a6.nv25.09" in torch
    assert "2.9.1+cu128" in torch
    assert "2.8.0a0+5228986c39.nv25.6" not in torch
    assert "2.14.0a0+eb65b36914.nv26.10" not in torch


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_the_pins_for_gpus_are_the_tested_versions_and_meet_the_extras(environment: Environment) -> None:
    pinned, tested = _versions(environment.file), _versions(environment.cpu_file)
    extras = (line for extra in environment.extras for line in OPTIONAL[extra])
    asked_for = [*map(Requirement, PROJECT["dependencies"]), *map(Requirement, extras)]
    assert [str(line) for line in asked_for if pinned.get(canonicalize_name(line.name)) not in line.specifier] == []
    other = {name for name in pinned.keys() & tested.keys() if pinned[name] != tested[name]}
    assert other <= set(environment.free)


def _needs(name: str, extras: frozenset[str], pin: str | None) -> Iterator[Requirement]:
    """What the package asks for on any of the Pythons, where it is installed here in the version that is pinned."""
    try:
        lines = (requires(name) or []) if version(name) == pin else []
    except PackageNotFoundError:
        return
    pythons = [{"python_version": python, "python_full_version": f"{python}.0"} for python in PYTHONS]
    for needed in map(Requirement, lines):
        marker = needed.marker
        if marker is None or any(marker.evaluate({**here, "extra": extra}) for here in pythons for extra in extras):
            yield needed


def test_the_pins_for_gpus_lack_nothing_that_the_packages_ask_for() -> None:
    """As far as the CPU environment has the same packages; `make check-pins` asks the package index for all."""
    pinned = _versions(ROOT / "requirements" / "gpu-train.txt")
    waiting, seen, wrong = [("nemo-sspo", wanted) for wanted in TRAIN], set(), []
    while waiting:
        who, needed = waiting.pop()
        name, extras = canonicalize_name(needed.name), frozenset({"", *needed.extras})
        pin = pinned.get(name)
        if pin is None or not needed.specifier.contains(pin, prereleases=True):
            wrong.append(f"{who} asks for {needed}, pinned is {pin}")
        if (name, extras) not in seen:
            seen.add((name, extras))
            waiting += [(name, of) for of in _needs(name, extras, pin)]
    assert wrong == []
    assert len(seen) > 100


def test_the_readmes_install_lines_take_the_pins() -> None:
    """`make check-pins` runs them."""
    train, engine, core, rollout = readme_lines()
    assert train == ["-c", "requirements/gpu-train.txt", ".[train]"]
    assert engine == ["-c", "requirements/gpu-train.txt", "--no-build-isolation", "nemo-sspo[transformer-engine]"]
    assert core == ["-c", "requirements/gpu-train-core.txt", ".[train-core]"]
    assert rollout == ["-c", "requirements/gpu-rollout.txt", ".[rollout]"]
    # Transformer Engine's setup.py imports both; with torch they have to be there before it is built.
    assert {"setuptools", "wheel", "torch"} <= {wanted.name for wanted in TRAIN}
