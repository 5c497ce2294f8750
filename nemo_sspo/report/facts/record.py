"""A run as the report reads it: its manifests, its settings, and its tables, column by column."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from nemo_sspo.artifacts.facts.base import SomeFacts
from nemo_sspo.artifacts.layout import RunLayout, no_run
from nemo_sspo.artifacts.published import PublishedStep, published_steps
from nemo_sspo.artifacts.selection import EarlyStop, early_stop
from nemo_sspo.artifacts.table import Table
from nemo_sspo.config.earlier import tree_of_today
from nemo_sspo.errors import UserError

Read = TypeVar("Read")


class PlannedStep(Protocol):
    """As much of a planned step as the report uses."""

    @property
    def step_id(self) -> str:
        """Name of the step."""
        ...

    @property
    def stage(self) -> str:
        """Verb of the step."""
        ...

    @property
    def iteration(self) -> int:
        """0 for the preparation."""
        ...

    @property
    def gpus(self) -> int:
        """GPUs it occupies."""
        ...


@dataclass(frozen=True)
class RunRecord:
    """Everything published by a run at one moment."""

    layout: RunLayout
    settings: Mapping[str, Any]
    """The resolved configuration as stored beside the artifacts."""
    steps: Sequence[PublishedStep]
    plan: Sequence[PlannedStep] = ()
    """Every step of the run; empty when its configuration is of another version."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Steps that failed and have not begun again, and why, as `status` has it."""
    unreadable: list[str] = field(default_factory=list)
    """Files that could not be read, and why: shown on the page."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.settings.get("name", self.layout.root.name))

    @property
    def iterations(self) -> list[int]:
        """Iterations that have published something."""
        return sorted({step.manifest.iteration for step in self.steps if step.manifest.iteration > 0})

    @cached_property
    def stopped(self) -> EarlyStop | None:
        """Where the run has ended before its last iteration."""
        return self.read(lambda: early_stop(self.layout), None)

    @property
    def result(self) -> int:
        """The newest policy that is exported, or the one that an early stop names; 0 is the base."""
        exported = (step.manifest.iteration for step in self.steps if step.manifest.stage == "export")
        return self.stopped.result if self.stopped else max(exported, default=0)

    @property
    def pending(self) -> list[str]:
        """Planned steps without an artifact, but those that an early stop has left out."""
        published, stop = {step.step_id for step in self.steps}, self.stopped
        left = [step for step in self.plan if stop is None or not stop.leaves_out(step.iteration)]
        return [step.step_id for step in left if step.step_id not in published]

    def of(self, stage: str, iteration: int) -> list[PublishedStep]:
        """Published shards of a stage; one element for a stage without shards."""
        return [s for s in self.steps if s.manifest.stage == stage and s.manifest.iteration == iteration]

    def facts(self, stage: str, iteration: int, kind: type[SomeFacts]) -> list[SomeFacts]:
        """What the shards of a stage reported, one element for a stage without shards; none where one is unreadable."""
        return self.read(lambda: [step.facts(kind) for step in self.of(stage, iteration)], [])

    def table(
        self, stage: str, iteration: int, table: Table, columns: Sequence[str], prompts: pa.Array | None = None
    ) -> pa.Table:
        """Some columns of a table of a stage without shards; empty before it is published, or when it cannot be read.

        `prompts`: ids of the prompts whose rows are read; None reads all.
        """
        found, nothing = self.of(stage, iteration), table.schema.empty_table().select(list(columns))
        if not found:
            return nothing
        folder = found[0].path
        if prompts is None:
            return self.read(lambda: table.read(folder, columns), nothing)
        return self.read(lambda: table.matching(folder, "prompt_id", prompts, columns), nothing)

    def read(self, read: Callable[[], Read], otherwise: Read) -> Read:
        """What `read` returns; `otherwise`, and a remark on the page, when an artifact is not what it should be."""
        try:
            return read()
        except (UserError, OSError) as error:
            self.unreadable.append(str(error).replace(f"{self.layout.root}/", ""))
            return otherwise

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """Records of a JSON lines file. A last line that is being written is left out."""
        text = self.read(path.read_text, "")
        return [record for line in text.splitlines() if (record := _json_object(line)) is not None]


def read_run(layout: RunLayout, plan: Sequence[PlannedStep] = (), failed: Mapping[str, str] | None = None) -> RunRecord:
    """Read a run's settings and manifests.

    Raises:
        UserError: there is no run.
    """
    try:
        settings = json.loads(layout.experiment.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise no_run(layout) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{layout.experiment}: not JSON ({error}); start the run again to write it") from None
    if not isinstance(settings, dict):
        raise UserError(f"{layout.experiment}: not a configuration; start the run again to write it")
    return RunRecord(layout, tree_of_today(settings), published_steps(layout), plan, failed or {})


def total(values: Iterable[int | None]) -> int | None:
    """Sum of a fact over shards; None where one does not have it, or where there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
