"""The runs of a study on disk: a file per seed, a line per run. A study that was stopped goes on where it was.

A file's first line says what its runs were made with; other settings are refused, so that no table mixes two studies.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nemo_sspo.errors import UserError

_DIGITS = 5


@dataclass(frozen=True)
class Run:
    """What came of one arm under one dial with one seed: facts of each iteration."""

    arm: str
    dial: float
    seed: int
    iterations: list[dict[str, float]]


class SeedFile:
    """The runs of one seed."""

    def __init__(self, folder: Path, seed: int, settings: dict[str, Any]) -> None:
        """Open it, or begin it. What a killed process left half-written at its end is dropped.

        Raises:
            UserError: the file was made with other settings.
        """
        self._path, self._seed = folder / f"seed-{seed:02}.jsonl", seed
        lines = whole_lines(self._path)
        if lines and json.loads(lines[0]) != settings:
            raise UserError(f"{self._path}: was made with other settings; give another --output, or remove it")
        text = "".join(f"{line}\n" for line in lines or [json.dumps(settings)])
        if not self._path.exists() or self._path.read_text() != text:
            self._path.write_text(text)
        self.done = {(run.arm, run.dial) for run in runs_of(self._path)}

    def add(self, run: Run) -> None:
        """Keep a run: it is on the disk when this returns."""
        rounded = [{name: _rounded(value) for name, value in facts.items()} for facts in run.iterations]
        with self._path.open("a") as file:
            file.write(json.dumps({"arm": run.arm, "dial": run.dial, "iterations": rounded}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.add((run.arm, run.dial))


@dataclass(frozen=True)
class Results:
    """All runs of a folder."""

    settings: dict[str, Any]
    runs: tuple[Run, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a study.

        Raises:
            UserError: there is none, or its files are of different studies.
        """
        paths = sorted(folder.glob("seed-*.jsonl"))
        if not paths:
            raise UserError(f"{folder}: holds no seed-*.jsonl; `nemo-sspo lab language --output {folder}` makes them")
        settings = {path: json.loads(whole_lines(path)[0]) for path in paths}
        for path in paths[1:]:
            if settings[path] != settings[paths[0]]:
                raise UserError(f"{path}: was made with other settings than {paths[0].name}; remove one of them")
        return cls(settings[paths[0]], tuple(run for path in paths for run in runs_of(path)))

    def seeds(self, arm: str, dial: float) -> list[int]:
        """Seeds with which an arm was run under a dial."""
        return sorted(run.seed for run in self.runs if (run.arm, run.dial) == (arm, dial))

    def values(self, arm: str, dial: float, measure: str, iteration: int = -1) -> dict[int, float]:
        """A measure of an arm by seed, at the last iteration unless another is named (0 is the first)."""
        return {run.seed: run.iterations[iteration][measure] for run in self.runs if (run.arm, run.dial) == (arm, dial)}


def whole_lines(path: Path) -> list[str]:
    """A file's lines that end; none where it does not exist."""
    if not path.exists():
        return []
    return path.read_text().split("\n")[:-1]


def runs_of(path: Path) -> Iterator[Run]:
    """The runs in a seed's file."""
    seed = int(path.stem.removeprefix("seed-"))
    for line in whole_lines(path)[1:]:
        yield Run(**json.loads(line), seed=seed)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
