"""Total cost of the judge over all steps of a run, so that a cap also holds while several steps ask concurrently.

One small file beside the journals has an entry per step: the cost of its answers and the likely cost of its pending
questions. A question is entered under a lock before it is asked, and its answer corrects the entry: a cap on
requests is exact; one on tokens or dollars can be exceeded by what pending answers cost above their estimate. A
killed step's questions stay entered until it runs again, since they may have been paid for.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from nemo_sspo.config.oracles import LlmJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.judge.journal import Spending, spent_by

_LEDGER, _LOCK = "spending.json", "spending.lock"

Entries = dict[str, Spending]


class Ledger:
    """The run's spending, seen from one step; without a journal's path it is that step's alone."""

    def __init__(self, journal: Path | None, settings: LlmJudgeOracle) -> None:
        self._folder = journal.parent if journal else None
        self._step = journal.stem if journal else ""
        self._settings = settings
        self._own: Entries = {}

    def open(self, spent: Spending) -> None:
        """Enter what this step's journal says it has paid; none of its questions is under way."""
        with self._entries() as entries:
            entries[self._step] = spent

    def over(self, cost: Spending) -> str | None:
        """The cap that the run would be over with `cost` more, in words."""
        with self._entries() as entries:
            return self._over(entries, cost)

    def enter(self, cost: Spending) -> str | None:
        """Enter a question of this likely cost; or, where it would pass a cap, enter nothing and name the cap."""
        with self._entries() as entries:
            if (over := self._over(entries, cost)) is None:
                entries[self._step] += cost
            return over

    def correct(self, cost: Spending, paid: Spending) -> None:
        """Replace the likely cost of a question by what its answer has cost."""
        with self._entries() as entries:
            entries[self._step] += paid - cost

    def _over(self, entries: Entries, cost: Spending) -> str | None:
        return sum(entries.values(), start=cost).over(self._settings)

    @contextmanager
    def _entries(self) -> Iterator[Entries]:
        """All steps' entries under the lock; what changes in them is kept."""
        if self._folder is None:
            yield self._own
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, also by a kill
            except OSError as error:
                raise UserError(
                    f"{self._folder}: its file system has no locks ({error}), so no cap would hold; give a "
                    "runs_dir=... on another, or have it mounted with them (Lustre: -o flock)"
                ) from None
            entries = self._read(self._folder)
            before = dict(entries)
            yield entries
            if entries != before:
                self._write(self._folder, entries)

    def _read(self, folder: Path) -> Entries:
        """The ledger; if there is none yet, the sum of the journals."""
        path = folder / _LEDGER
        try:
            kept = json.loads(path.read_bytes())
            return {step: Spending(*map(int, costs)) for step, costs in kept.items()}
        except FileNotFoundError:
            return {journal.stem: spent_by(journal) for journal in folder.glob("*.jsonl")}
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"{path}: not what a judge's steps have paid; delete it to have it made anew") from None

    def _write(self, folder: Path, entries: Entries) -> None:
        draft = folder / f"{_LEDGER}.tmp"  # one writer at a time: the lock's holder
        draft.write_text(json.dumps({step: astuple(spending) for step, spending in entries.items()}))
        os.replace(draft, folder / _LEDGER)
