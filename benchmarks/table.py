"""What a benchmark found: printed, kept as JSON in `benchmarks/results/`, and put together in `docs/benchmarks.md`.

`python -m benchmarks.table` writes that page from the JSON files there are.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nemo_sspo.words import counted

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ON_A_GPU = ("gpu.gemm", "gpu.head", "gpu.train_step", "gpu.precision", "gpu.pairrm", "gpu.ledger")
"""The benchmarks that need a GPU, in the order of the page."""
_EARLIER = "measured in an earlier run"

Cell = str | int | float | None


@dataclass(frozen=True)
class Goal:
    """A ratio that was to be reached, and what was measured."""

    what: str
    wanted: str
    measured: str
    is_met: bool | None
    """None: this machine cannot tell."""


@dataclass(frozen=True)
class Benchmark:
    """One claim with its table."""

    name: str
    """Stem of its JSON file, and name of its module in this package."""
    claim: str
    """One sentence."""
    setting: str
    """Sizes, precision, what is counted and what is timed."""
    columns: tuple[str, ...]
    """Heads of the columns; the unit is part of the head."""
    rows: list[tuple[Cell, ...]]
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: str = ""

    def publish(self, results: Path = RESULTS) -> None:
        """Print the table and keep it as JSON. Raises ValueError where a row has not one cell per column."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: {len(row)} cells in {row}, but {len(self.columns)} columns")
        results.mkdir(parents=True, exist_ok=True)
        record = asdict(self) | {"machine": self.machine or machine()}
        (results / f"{self.name}.json").write_text(json.dumps(record, indent=2) + "\n")
        print(self.markdown(), flush=True)

    def with_kept(self, measured: Collection[str], results: Path = RESULTS) -> Benchmark:
        """With what an earlier run found on sources that this one has not `measured`: rows that begin with a source's
        name, and goals and notes whose text does."""
        path = results / f"{self.name}.json"
        earlier = Benchmark.read(path) if path.exists() else self
        if earlier.columns != self.columns:
            return self
        kept = tuple(dict.fromkeys(str(row[0]) for row in earlier.rows if row[0] not in measured))
        if not kept:
            return self
        notes = [note for note in earlier.notes if note.startswith(kept) and note not in self.notes]
        if earlier.machine != machine() and not any(_EARLIER in note for note in notes):
            notes.append(f"{', '.join(kept)}: {_EARLIER}, on {earlier.machine}.")
        return replace(
            self,
            rows=[*self.rows, *(row for row in earlier.rows if row[0] in kept)],
            goals=[*self.goals, *(goal for goal in earlier.goals if goal.what.startswith(kept))],
            notes=[*self.notes, *notes],
        )

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """What `publish` kept."""
        record = json.loads(path.read_text())
        goals = [Goal(**goal) for goal in record.pop("goals")]
        rows = [tuple(row) for row in record.pop("rows")]
        return cls(**record | {"columns": tuple(record["columns"]), "rows": rows, "goals": goals})

    def markdown(self) -> str:
        """A section of the page."""
        lines = [f"## {self.claim}", "", self.setting, ""]
        lines += [_line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_cell(cell) for cell in row]) for row in self.rows]
        if self.goals:
            lines += ["", "| goal | wanted | measured | |", "|---|---|---|---|"]
            marks = {True: "met", False: "**missed**", None: "cannot be told here"}
            lines += [_line([goal.what, goal.wanted, goal.measured, marks[goal.is_met]]) for goal in self.goals]
        if self.notes:
            lines += ["", *[f"- {note}" for note in self.notes]]
        return "\n".join([*lines, "", f"`python -m benchmarks.{self.name}` on {self.machine or machine()}.", ""])


def machine() -> str:
    """What the numbers were measured on: processor, versions; no name and no path."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = f"{len(names)} x {names[0]}" if names else model
    torch = sys.modules.get("torch")  # not imported for a name: the page is written without it
    return (
        model if torch is None else f"{model}, torch {torch.__version__}, {counted(torch.get_num_threads(), 'thread')}"
    )


def page(results: Path = RESULTS) -> str:
    """The whole page, benchmarks by name; those that need a GPU last."""
    found = {path.stem: Benchmark.read(path) for path in sorted(results.glob("*.json"))}
    head = [
        "# Benchmarks",
        "",
        "`make bench bench-pairrm bench-gates` run the files in `benchmarks/` and write this page. FLOPs and bytes",
        "are counted, so they are equal on every machine, and `tests/benchmarks` holds them; seconds are of the",
        "machine named under each table. Others' formulations are written from their published description and run",
        "on the same tensors.",
        "",
    ]
    sections = [benchmark.markdown() for name, benchmark in found.items() if name not in ON_A_GPU]
    return "\n".join(head + sections + ["# On a GPU", "", *_on_a_gpu(found)])


def _on_a_gpu(found: dict[str, Benchmark]) -> list[str]:
    run = [found[name].markdown() for name in ON_A_GPU if name in found]
    missing = ", ".join(f"`{name}`" for name in ON_A_GPU if name not in found)
    if not missing:
        return run
    return [f"Not yet run: {missing}. `make bench-gpu` runs them; `benchmarks/gpu/README.md` tells how.", "", *run]


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


if __name__ == "__main__":
    PAGE.write_text(page())
